#!/bin/sh
# certbot runs this after each renewal, and an administrator once after the first certificate. coturn does not run as root
# and cannot read certbot's folder: it gets a copy, and SIGUSR2, upon which it reads certificate and key again.
#
# Install as /etc/letsencrypt/renewal-hooks/deploy/coturn, with mode 755. Replace turn.example.com with your own domain.
set -eu
domain=turn.example.com
live=/etc/letsencrypt/live/$domain
own=/etc/coturn

# certbot names the renewed certificate; others are not for coturn.
[ "${RENEWED_LINEAGE:-$live}" = "$live" ] || exit 0

install -d -m 0750 -g turnserver "$own"
for file in fullchain.pem privkey.pem; do
    install -m 0640 -g turnserver "$live/$file" "$own/$file.new"
    mv "$own/$file.new" "$own/$file"
done
systemctl kill --signal=SIGUSR2 --kill-whom=main coturn 2> /dev/null || true
