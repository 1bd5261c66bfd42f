# An image that contains only the static binaries. docs/run/deployment.md says how it was tested.
#
#   docker build -t signaling-server .
#
# It runs with a read-only root and writes only to /data, beside the users file.

FROM rust:1.95-alpine AS build
# aws-lc-rs is C code.
RUN apk add --no-cache ca-certificates gcc musl-dev
WORKDIR /src
COPY . .
# musl links statically, on every architecture. The binaries are copied because a cache mount is not part of a layer.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bins \
    && mkdir /data /image \
    && cp target/release/signaling-server target/release/manage_users /image/

FROM scratch
# Authorities for rediss:// without REDIS_CA_FILE.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /image/ /
# The working folder: .env, users.csv, and the files that the server writes beside it.
COPY --from=build --chown=10001:10001 /data/ /data/
VOLUME /data
WORKDIR /data
USER 10001:10001
ENV HOST=0.0.0.0 PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s --retries=2 CMD ["/signaling-server", "healthcheck"]
ENTRYPOINT ["/signaling-server"]
