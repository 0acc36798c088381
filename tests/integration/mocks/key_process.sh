#!/bin/sh
# A credential process: prints the key that stands in FILE ("ID SECRET [SECONDS]") as JSON; with SECONDS it expires then.
read -r id secret seconds <"$1" || exit 1
printf '{"AccessKeyId": "%s", "AccessKeySecret": "%s"' "$id" "$secret"
[ -z "$seconds" ] || printf ', "Expiration": "%s"' "$(date -u -d "+$seconds seconds" +%Y-%m-%dT%H:%M:%SZ)"
printf '}\n'
