#!/bin/sh
# certbot runs this after each renewal: nginx reads its certificates only when it is reloaded.
#
# Install as /etc/letsencrypt/renewal-hooks/deploy/nginx, with mode 755.
set -eu
systemctl reload nginx
