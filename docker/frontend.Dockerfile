# The gateway: NGINX in front of the API, with the files of the web UI.
#
#   docker build -f docker/frontend.Dockerfile -t inferstack/frontend .
ARG NODE_IMAGE=node:24.18.0-bookworm-slim
ARG NGINX_IMAGE=nginxinc/nginx-unprivileged:1.31.6-alpine-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /src
COPY frontend/package.json frontend/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY frontend ./
RUN npm run build

FROM ${NGINX_IMAGE}
COPY nginx /opt/gateway
COPY --from=build /src/dist /usr/share/nginx/html
# Unprivileged: ports below 1024 are for the host to publish.
ENV GATEWAY_HTTP=8080 \
    GATEWAY_HTTPS=8443
USER 101:101
EXPOSE 8080 8443
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/gateway/live"]
ENTRYPOINT []
CMD ["sh", "/opt/gateway/gateway.sh"]
