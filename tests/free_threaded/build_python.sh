#!/usr/bin/env bash
# Builds a free-threaded CPython 3.13 into PREFIX, from Debian's own source package.
#
#     tests/free_threaded/build_python.sh PREFIX
#
# Debian has no free-threaded interpreter among its packages, but trixie, the release after
# bookworm, has the sources of one that can be configured without the GIL. apt-get fetches
# them from the mirror that this machine is set up for, with configuration and lists in a
# temporary folder, so that the system's own sources stay as they are. Signatures are
# checked as ever. Needs Debian, and root or the build_dependencies below.
set -euo pipefail

readonly release=trixie version=3.13
readonly keyring=/usr/share/keyrings/debian-archive-keyring.gpg
readonly build_dependencies=(
    dpkg-dev gcc libc6-dev make xz-utils debian-archive-keyring
    libbz2-dev libffi-dev liblzma-dev libsqlite3-dev libssl-dev uuid-dev zlib1g-dev
)

say() { printf 'free-threaded Python: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# Where the machine's own release comes from, whichever way its sources are written.
mirror() {
    # shellcheck disable=SC2016  # the words in brackets are apt's
    apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' |
        awk -v release="$1" '$2 == release && $3 == "main" && !found++ { print $1 }'
}

install_dependencies() {
    local missing=() package
    for package in "${build_dependencies[@]}"; do
        dpkg-query --show --showformat '${Status}\n' "$package" 2>/dev/null |
            grep -q 'ok installed' || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    ((EUID == 0)) || die "install these, or run this as root: ${missing[*]}"
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${missing[@]}" >/dev/null
}

# Fetches and unpacks the source package into the folder $1.
fetch() {
    local folder=$1 own_release uri
    own_release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    uri=$(mirror "$own_release")
    [[ -n $uri ]] || die "found no mirror of '$own_release' among apt's sources"
    mkdir -p "$folder"/{sources.list.d,state/lists/partial,cache/archives/partial,source}
    cat >"$folder/sources.list.d/$release.sources" <<SOURCES
Types: deb-src
URIs: $uri
Suites: $release
Components: main
Signed-By: $keyring
SOURCES
    local apt=(
        apt-get -qq
        -o "Dir::Etc::SourceList=/dev/null"
        -o "Dir::Etc::SourceParts=$folder/sources.list.d"
        -o "Dir::State=$folder/state"
        -o "Dir::State::status=/var/lib/dpkg/status"
        -o "Dir::Cache=$folder/cache"
    )
    if ((EUID == 0)); then
        # apt downloads as a user without rights, who must get at the folder.
        chmod 755 "$folder"
        chown _apt "$folder/source"
    fi
    "${apt[@]}" update || die "no signed list of $release's sources (does $keyring know its key?)"
    # --no-check: the archive's signature covers the package's hashes, so the uploader's own
    # need not be checked against the developers' keys, which are yet another package.
    # --skip-patches: Debian's move site-packages, and then uv's isolated builds find nothing.
    (cd "$folder/source" && "${apt[@]}" --download-only source "python$version")
    dpkg-source --no-check --skip-patches --extract "$folder"/source/*.dsc "$folder/python" \
        >/dev/null
}

build() {
    local source=$1 prefix=$2 staging=$2.staging
    rm -rf "$staging"
    cd "$source"
    # Neither PGO nor LTO: they take most of an hour and change no test's outcome.
    ./configure --prefix="$prefix" --disable-gil --disable-test-modules --without-ensurepip \
        OPT='-DNDEBUG -fwrapv -O2'
    nice -n 10 make --jobs "${JOBS:-$(nproc)}"
    make altinstall DESTDIR="$staging"
    # In one step, so that what is there is whole.
    rm -rf "$prefix"
    mv "$staging$prefix" "$prefix"
    rm -rf "$staging"
}

clean_up() {
    local status=$?
    if ((status != 0)) && [[ -s $folder/log ]]; then
        tail -n 40 "$folder/log" >&2
    fi
    rm -rf "$folder"
}

main() {
    (($# == 1)) || die "usage: $0 PREFIX"
    [[ $1 == /* ]] || die "PREFIX must be absolute: $1"
    grep -qsx 'ID=debian' /etc/os-release ||
        die "builds on Debian only; set FREE_THREADED_PYTHON to an interpreter that you have"
    local prefix=${1%/} python=$1/bin/python${version}t
    folder=$(mktemp -d)
    trap clean_up EXIT
    mkdir -p "$(dirname "$prefix")"
    install_dependencies
    fetch "$folder"
    say "building $(basename "$folder"/source/*.dsc .dsc) for $prefix: takes a few minutes"
    (build "$folder/python" "$prefix") >"$folder/log" 2>&1
    "$python" -c 'import ctypes, hashlib, lzma, sqlite3, ssl, sys, zlib
assert not sys._is_gil_enabled()' || die "$python does not work"
    say "$("$python" --version) is in $prefix"
}

main "$@"
