# The image, built from source:  docker build -t maitred .
# Dockerfile.binary makes the same image from a binary that is there already; scripts/container tests that one.
ARG BUILDER=rust:1.95-bookworm
FROM ${BUILDER} AS build
WORKDIR /source
COPY . .
RUN RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked --bin maitred --example backend --target x86_64-unknown-linux-gnu \
    && cp target/x86_64-unknown-linux-gnu/release/maitred target/x86_64-unknown-linux-gnu/release/examples/backend /

# What conf/compose.yaml balances to.
FROM scratch AS backend
COPY --from=build /backend /backend
USER 65532:65532
ENTRYPOINT ["/backend"]

FROM scratch AS maitred
COPY --from=build /maitred /maitred
LABEL org.opencontainers.image.title="maitred" \
      org.opencontainers.image.description="A layer-4 load balancer" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
USER 65532:65532
# The configuration is mounted at /etc/maitred/maitred.yaml; nothing is written anywhere.
EXPOSE 9900
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=5s --retries=3 CMD ["/maitred", "health", "--admin", ":9900"]
ENTRYPOINT ["/maitred"]
CMD ["run", "--admin", ":9900"]
