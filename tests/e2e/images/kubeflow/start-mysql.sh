# What the public image of MySQL does with an empty disk and its password, with MariaDB.
set -eu
data=/var/lib/mysql
if [ ! -d "$data/mysql" ]; then
  mariadb-install-db --no-defaults --datadir="$data" --auth-root-authentication-method=normal --skip-test-db > /dev/null
  printf "ALTER USER root@localhost IDENTIFIED BY '%s';\nCREATE USER root@'%%' IDENTIFIED BY '%s';\nGRANT ALL ON *.* TO root@'%%' WITH GRANT OPTION;\n" \
    "$MYSQL_ROOT_PASSWORD" "$MYSQL_ROOT_PASSWORD" > /tmp/first.sql
fi
[ -e /tmp/first.sql ] || : > /tmp/first.sql
exec mariadbd --no-defaults --datadir="$data" --socket=/tmp/mysqld.sock --pid-file=/tmp/mysqld.pid --bind-address=0.0.0.0 --skip-log-bin --init-file=/tmp/first.sql
