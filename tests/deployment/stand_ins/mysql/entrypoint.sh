#!/bin/sh
# At the first start a schema, its account and root's password: each MYSQL_… from the environment, or from the file that MYSQL_…_FILE names. Then the server, with what the command says.
set -eu
umask 077
told() { eval "file=\${$1_FILE:-} text=\${$1:-}"; [ -z "$file" ] || text=$(cat "$file"); printf %s "$text"; }
r=/opt/mysql/usr
set -- "--basedir=$r" "--lc-messages-dir=$r/share/mysql" "--character-sets-dir=$r/share/mysql/charsets" "--plugin-dir=$r/lib/mysql/plugin" --datadir=/var/lib/mysql/data \
  --socket=/var/run/mysqld/mysqld.sock --pid-file=/tmp/mysqld.pid --tmpdir=/tmp --secure-file-priv=NULL --mysqlx=OFF --server-id=1 "$@"
if [ ! -d /var/lib/mysql/data ]; then
  root=$(told MYSQL_ROOT_PASSWORD)
  {
    echo "ALTER USER root@localhost IDENTIFIED BY '$root';"
    echo "CREATE USER root@'%' IDENTIFIED BY '$root';"
    echo "GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;"
    if [ -n "${MYSQL_DATABASE:-}" ]; then
      echo "CREATE DATABASE $MYSQL_DATABASE;"
      echo "CREATE USER '$MYSQL_USER'@'%' IDENTIFIED BY '$(told MYSQL_PASSWORD)';"
      echo "GRANT ALL ON $MYSQL_DATABASE.* TO '$MYSQL_USER'@'%';"
    fi
  } >/tmp/init.sql
  mysqld --no-defaults "$@" --initialize-insecure --init-file=/tmp/init.sql
  rm /tmp/init.sql
fi
exec mysqld --no-defaults "$@"
