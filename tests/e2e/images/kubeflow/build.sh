#!/usr/bin/env bash
# build.sh SOURCES FOLDER: builds the programs of Kubeflow Pipelines from its sources at 2.17.0 (a checkout, or `git archive 2.17.0` unpacked), Argo's and an
# object store from Go's module proxy, and lays out FOLDER for the Dockerfile beside this file. Go 1.26; half an hour on two cores, seconds the second time.
set -euo pipefail
here=$(dirname "$(realpath "$0")") sources=$(realpath "$1")
mkdir -p "$2" && folder=$(realpath "$2")
argo=v4.0.5 gateway=v1.8.0
rm -rf "$folder/work"
export CGO_ENABLED=0 GOFLAGS="${GOFLAGS:-} -buildvcs=false"
mkdir -p "$folder/usr/local/bin" "$folder/etc/kubeflow" "$folder/work"

build() { # NAME PACKAGE, in the current folder
  echo "$1" >&2
  go build -trimpath -ldflags "-s -w" -modfile "$modules" -mod=mod -o "$folder/usr/local/bin/$1" "$2"
}

cd "$sources"
modules=$folder/work/kubeflow.mod
sed "s|=> \./|=> $sources/|" go.mod > "$modules" && cp go.sum "${modules%.mod}.sum"
go mod edit -replace "github.com/kubeflow/pipelines/third_party/ml-metadata=$sources/third_party/ml-metadata" "$modules"
# Without cgo, go-sqlite3 lacks two names that the API server's code has; nothing else of it is used.
go mod download -modfile "$modules" github.com/mattn/go-sqlite3
cp -r "$(go list -modfile "$modules" -mod=mod -m -f '{{.Dir}}' github.com/mattn/go-sqlite3)" "$folder/work/sqlite" && chmod -R u+w "$folder/work/sqlite"
cp "$here/sqlite_errors.go" "$folder/work/sqlite/"
go mod edit -replace "github.com/mattn/go-sqlite3=$folder/work/sqlite" "$modules"
build apiserver ./backend/src/apiserver
build driver ./backend/src/v2/cmd/driver
build launcher-v2 ./backend/src/v2/cmd/launcher-v2
build persistence_agent ./backend/src/agent/persistence
build controller ./backend/src/crd/controller/scheduledworkflow
cp backend/src/apiserver/config/config.json "$folder/etc/kubeflow/"

mkdir -p "$folder/work/others" && cd "$folder/work/others"
modules=$PWD/go.mod
[ -e go.mod ] || go mod init others 2> /dev/null
go get "github.com/argoproj/argo-workflows/v4@$argo" "github.com/versity/versitygw@$gateway"
build workflow-controller github.com/argoproj/argo-workflows/v4/cmd/workflow-controller
build argoexec github.com/argoproj/argo-workflows/v4/cmd/argoexec
build versitygw github.com/versity/versitygw/cmd/versitygw
rm -r "$folder/work"
cp "$here/start-mysql.sh" "$here/start-object-store.sh" "$here/metadata_server.py" "$here/Dockerfile" "$folder/"
