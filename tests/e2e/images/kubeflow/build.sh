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

fetch() { # MODULE@VERSION FOLDER: a copy that can be written to
  cp -r "$(go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')" "$2" && chmod -R u+w "$2" && cd "$2" && modules=$2/go.mod
}

fetch "github.com/argoproj/argo-workflows/v4@$argo" "$folder/work/argo"
# A symbolic link in its repository, which a module has not.
cp workflow/executor/osspecific/signal_darwin.go workflow/executor/osspecific/signal_linux.go
build workflow-controller ./cmd/workflow-controller
build argoexec ./cmd/argoexec
fetch "github.com/versity/versitygw@$gateway" "$folder/work/gateway"
build versitygw ./cmd/versitygw
rm -r "$folder/work"
cp "$here/start-mysql.sh" "$here/start-object-store.sh" "$here/metadata_server.py" "$here/Dockerfile" "$folder/"
