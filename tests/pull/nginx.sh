# nginx for the scripts here, after `. tests/pull/lib.sh`: from a folder of its own, on free ports of the loopback
# interface, as whoever calls. $nginx is its path, "" when there is none.
nginx=$(PATH=$PATH:/usr/sbin:/sbin command -v nginx)

# $top/cert.pem, for localhost, which nobody has signed but itself.
certificate()
{
    [ ! -e "$top/cert.pem" ] || return 0
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$top/key.pem" -out "$top/cert.pem" \
        -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 2>/dev/null
}
# Starts nginx over www/; $main is HOST:PORT, $tls the same with TLS. Lines for the location / from stdin.
serve_nginx()
{
    local i port more
    more=$(cat)
    mkdir -p "$here/nginx"
    certificate || return 1
    for i in 1 2 3 4 5; do
        port=$((12000 + RANDOM % 20000))
        cat >"$here/nginx/conf" <<END
$([ "$(id -u)" -ne 0 ] || echo "user root;") # the folders here are nobody's business
worker_processes 1;
daemon off;
pid $here/nginx/pid;
error_log $here/nginx/error.log;
events { worker_connections 64; }
http {
    log_format short '< nginx \$request_method \$request_uri status=\$status sent=\$body_bytes_sent '
        'range=\$http_range t=\$msec';
    access_log $here/log short;
    client_body_temp_path $here/nginx/1;
    proxy_temp_path $here/nginx/2;
    fastcgi_temp_path $here/nginx/3;
    uwsgi_temp_path $here/nginx/4;
    scgi_temp_path $here/nginx/5;
    server {
        listen 127.0.0.1:$port;
        listen 127.0.0.1:$((port + 1)) ssl;
        ssl_certificate $top/cert.pem;
        ssl_certificate_key $top/key.pem;
        root $here/www;
        location / { $more }
    }
}
END
        "$nginx" -p "$here/nginx" -e "$here/nginx/error.log" -c "$here/nginx/conf" 2>>"$here/nginx/start" &
        server=$!
        started+=" $server"
        main=127.0.0.1:$port tls=localhost:$((port + 1))
        wait_for answers_or_is_gone && kill -0 "$server" 2>/dev/null && return 0
    done
    cat "$here/nginx/start"
    return 1
}
answers_or_is_gone()
{
    [ -e "$here/nginx/pid" ] || ! kill -0 "$server"
}
