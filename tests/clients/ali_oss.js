// One operation of ali-oss a run: node ali_oss.js OPERATION JSON. Configuration comes from the environment; prints JSON.
'use strict';
const OSS = require(process.env.ALI_OSS_MODULE);
const fs = require('fs');

const [operation, json] = process.argv.slice(2);
const a = JSON.parse(json || '{}');
const client = new OSS({
  endpoint: process.env.ENDPOINT,
  region: 'oss-cn-hangzhou',
  authorizationV4: process.env.SIGN === 'v4',
  accessKeyId: process.env.OSS_ACCESS_KEY_ID,
  accessKeySecret: process.env.OSS_ACCESS_KEY_SECRET,
  bucket: a.bucket,
  timeout: 60000,
});

const operations = {
  createBucket: () => client.putBucket(a.bucket),
  listBuckets: async () => ((await client.listBuckets()).buckets || []).map((b) => b.name),
  deleteBucket: () => client.deleteBucket(a.bucket),
  put: () => client.put(a.key, a.file, { meta: a.meta, headers: a.headers }),
  get: async () => { await client.get(a.key, a.file, { headers: a.headers }); },
  head: async () => {
    const r = await client.head(a.key, { headers: a.headers });
    return { status: r.status, meta: r.meta, headers: r.res.headers };
  },
  objectMeta: async () => (await client.getObjectMeta(a.key)).res.headers,
  list: async () => {
    const r = await client.list(a.query);
    return { keys: (r.objects || []).map((o) => o.name), prefixes: r.prefixes || [], next: r.nextMarker };
  },
  listV2: async () => {
    const r = await client.listV2(a.query);
    return { keys: (r.objects || []).map((o) => o.name), prefixes: r.prefixes || [], next: r.nextContinuationToken };
  },
  multipart: () => client.multipartUpload(a.key, a.file, { partSize: a.partSize, parallel: 3 }),
  multipartCopy: () => client.multipartUploadCopy(a.key, { sourceKey: a.source, sourceBucketName: a.bucket }, { partSize: a.partSize, parallel: 2 }),
  partsAndAbort: async () => {
    const { uploadId } = await client.initMultipartUpload(a.key);
    await client.uploadPart(a.key, uploadId, 1, a.file, 0, a.partSize);
    const uploads = (await client.listUploads({ 'max-uploads': 10 })).uploads.map((u) => u.uploadId);
    const parts = [].concat((await client.listParts(a.key, uploadId)).parts).map((p) => Number(p.Size || p.size));
    await client.abortMultipartUpload(a.key, uploadId);
    const left = ((await client.listUploads({ 'max-uploads': 10 })).uploads || []).length;
    return { found: uploads.includes(uploadId), parts, left };
  },
  append: async () => {
    const first = await client.append(a.key, Buffer.from('first,'));
    await client.append(a.key, Buffer.from('second'), { position: first.nextAppendPosition });
    let refused = '';
    try { await client.append(a.key, Buffer.from('x'), { position: 3 }); } catch (e) { refused = e.code; }
    return { refused, content: (await client.get(a.key)).content.toString() };
  },
  copy: () => client.copy(a.key, a.source),
  symlink: async () => {
    await client.putSymlink(a.key, a.source, {});
    return { target: (await client.getSymlink(a.key)).targetName, content: (await client.get(a.key)).content.length };
  },
  forbidOverwrite: async () => {
    try { await client.put(a.key, Buffer.from('x'), { headers: { 'x-oss-forbid-overwrite': 'true' } }); } catch (e) { return e.code; }
    return 'accepted';
  },
  conditional: async () => {
    const { res } = await client.head(a.key);
    const status = async (headers) => { try { return (await client.get(a.key, { headers })).res.status; } catch (e) { return e.status; } };
    return [await status({ 'If-None-Match': res.headers.etag }), await status({ 'If-Match': '"nonsense"' }), await status({ 'If-Match': res.headers.etag })];
  },
  sign: async () => (process.env.SIGN === 'v4' ? client.signatureUrlV4('GET', 60, undefined, a.key) : client.signatureUrl(a.key, { expires: 60 })),
  remove: () => client.delete(a.key),
  removeMany: async () => (await client.deleteMulti(a.keys, { quiet: true })).deleted,
};

operations[operation]().then(
  (r) => { process.stdout.write(JSON.stringify(r === undefined ? null : r, (k, v) => (k === 'res' ? undefined : v)) + '\n'); },
  (e) => { process.stderr.write(`${e.status || ''} ${e.code || e.name}: ${e.message}\n`); process.exit(1); },
);
