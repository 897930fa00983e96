# shellcheck shell=bash
# Debian's packages: installing what is missing, and suites that the machine's own configuration
# does not have. The latter live in private apt configurations under build/apt/; /etc/apt is only
# ever read.
#
# Needs common.sh.

readonly APT_DIR=$BUILD/apt
# Lists older than this are fetched again.
readonly APT_LISTS_MAX_AGE_MIN=$((12 * 60))

on_debian() {
    have apt-get && [[ $(os_release ID) == debian ]]
}

os_release() { (. /etc/os-release 2>/dev/null && printf '%s' "${!1:-}"); }

debian_codename() { os_release VERSION_CODENAME; }

# missing_packages NAME...: those that are not installed, one per line.
missing_packages() {
    local name
    for name; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] ||
            printf '%s\n' "$name"
    done
}

# need_packages WHY NAME...: installs those that are missing, from the machine's own sources.
need_packages() {
    local why=$1 missing
    shift
    if ! have dpkg-query; then
        [[ -n ${APT_WARNED:-} ]] || warn "not a Debian system: nothing is installed for you;" \
            "needed for $why: $*"
        APT_WARNED=1
        return
    fi
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || return 0
    say "installing Debian packages for $why: ${missing[*]}"
    apt_install system "${missing[@]}"
}

# apt_install CONFIG ARG...: apt-get install with a private configuration, or `system`. Not all of
# apt's own locks wait.
apt_install() { with_lock apt-install apt_install_locked "$@"; }
apt_install_locked() {
    local config=$1 log=$LOGS/apt-install.log options=()
    shift
    [[ $config == system ]] || options=(-c "$APT_DIR/$config/apt.conf")
    if [[ -n ${VFIO_DISPLAY_NO_INSTALL:-} ]]; then
        die "VFIO_DISPLAY_NO_INSTALL is set, and these packages are missing: $*"
    fi
    mkdir -p "$LOGS"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}"
        -o DPkg::Lock::Timeout=600 install --yes --no-install-recommends "$@")
    as_root "${install[@]}" >"$log" 2>&1 </dev/null && return
    # Old or absent package lists are the usual reason: fetch them and try once more.
    say "  refreshing the package lists"
    as_root apt-get "${options[@]}" -o DPkg::Lock::Timeout=600 update >>"$log" 2>&1 </dev/null ||
        warn "apt-get update had errors, see $log"
    as_root "${install[@]}" >>"$log" 2>&1 </dev/null ||
        fail_with_log "apt-get install $*" "$log"
}

# apt_machine_sources: the machine's enabled binary sources with component main, both in the
# one-line and in the deb822 form: lines of "URI<tab>SUITE<tab>SIGNED-BY<tab>TRUSTED", "-" for none.
apt_machine_sources() {
    local file
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [[ -r $file ]] || continue
        # deb [option=value ...] URI SUITE COMPONENT...
        awk '
            $1 == "deb" {
                sub(/#.*/, ""); signed = trusted = "-"; i = 2
                if ($2 ~ /^\[/) {
                    for (;; i++) {
                        word = $i; sub(/^\[/, "", word); last = sub(/\].*/, "", word)
                        if (word ~ /^signed-by=/) signed = substr(word, 11)
                        if (word ~ /^trusted=/) trusted = substr(word, 9)
                        if (last || i > NF) break
                    }
                    i++
                }
                for (c = i + 2; c <= NF; c++)
                    if ($c == "main") print $i "\t" $(i + 1) "\t" signed "\t" trusted
            }' "$file"
    done
    for file in /etc/apt/sources.list.d/*.sources; do
        [[ -r $file ]] || continue
        awk '
            function flush(  u, s, c, i, j, k) {
                if (field["types"] ~ /(^| )deb( |$)/ && field["enabled"] !~ /^(no|false|0)$/) {
                    u = split(field["uris"], uris, " ")
                    s = split(field["suites"], suites, " ")
                    c = split(field["components"], components, " ")
                    # A key that is written out in the file cannot go on one line: leave it out.
                    signed = field["signed-by"]
                    if (signed !~ /^\/[^ ]*$/) signed = "-"
                    trusted = field["trusted"] == "" ? "-" : field["trusted"]
                    for (k = 1; k <= c; k++) if (components[k] == "main")
                        for (i = 1; i <= u; i++) for (j = 1; j <= s; j++)
                            print uris[i] "\t" suites[j] "\t" signed "\t" trusted
                }
                split("", field); name = ""
            }
            /^#/ { next }
            /^[ \t]*$/ { flush(); next }
            /^[ \t]/ { if (name != "") { sub(/^[ \t]+/, ""); field[name] = field[name] " " $0 } next }
            {
                colon = index($0, ":"); name = tolower(substr($0, 1, colon - 1))
                value = substr($0, colon + 1); sub(/^[ \t]+/, "", value); sub(/[ \t]+$/, "", value)
                field[name] = value
            }
            END { flush() }' "$file"
    done
}

# apt_mirror: the machine's own Debian archive: "[OPTIONS] URI" as a sources.list line wants it.
apt_mirror() {
    local uri suite signed trusted codename brackets=''
    codename=$(debian_codename)
    while IFS=$'\t' read -r uri suite signed trusted; do
        case $suite in
        "$codename" | oldstable | stable | testing | unstable | sid) ;;
        *) continue ;;
        esac
        # Not every source that names Debian's suites is Debian's archive: keys tell.
        [[ $signed == - || $signed == *debian-archive* ]] || continue
        if [[ $signed == - && -r /usr/share/keyrings/debian-archive-keyring.gpg ]]; then
            signed=/usr/share/keyrings/debian-archive-keyring.gpg
        fi
        [[ $signed == - ]] || brackets+=" signed-by=$signed"
        [[ $trusted == - ]] || brackets+=" trusted=$trusted"
        printf '%s%s\n' "${brackets:+[${brackets# }] }" "$uri"
        return
    done < <(apt_machine_sources)
    return 1
}

# apt_private NAME LINE...: makes a private configuration build/apt/NAME/apt.conf with these sources
# ("deb sid main", without the mirror; "machine" for the machine's own), and fetches their lists.
# Proxies, authentication and the like come from the machine's configuration.
apt_private() { with_lock apt apt_private_locked "$@"; }
apt_private_locked() {
    local name=$1 dir=$APT_DIR/$1 mirror line type rest uri suite signed trusted
    shift
    mirror=$(apt_mirror) || die "found no Debian archive in /etc/apt/sources.list*" \
        "A \"deb MIRROR SUITE main\" line or its .sources form is needed to know the mirror."
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    for line; do
        if [[ $line == machine ]]; then
            while IFS=$'\t' read -r uri suite signed trusted; do
                [[ $suite == $(debian_codename)* ]] || continue
                line=''
                [[ $signed == - ]] || line+=" signed-by=$signed"
                [[ $trusted == - ]] || line+=" trusted=$trusted"
                printf 'deb %s%s %s main\n' "${line:+[${line# }] }" "$uri" "$suite"
            done < <(apt_machine_sources)
        else
            read -r type rest <<<"$line"
            printf '%s %s %s\n' "$type" "$mirror" "$rest"
        fi
    done | sort -u >"$dir/sources.list.new"
    cat >"$dir/apt.conf" <<CONF
// Made by scripts/: apt with suites of its own; nothing under /etc/apt or /var/lib/apt is changed.
Dir::Etc::SourceList "$dir/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$dir/lists";
Dir::Cache "$dir/cache";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
// The user _apt cannot see into a home directory.
APT::Sandbox::User "root";
CONF
    if ! cmp -s "$dir/sources.list.new" "$dir/sources.list" ||
        [[ -z $(find "$dir/updated" -mmin "-$APT_LISTS_MAX_AGE_MIN" 2>/dev/null) ]]; then
        mv "$dir/sources.list.new" "$dir/sources.list"
        say "using a private apt configuration, $dir (the system's stays as it is):"
        sed 's/^/    /' "$dir/sources.list" >&2
        rm -f "$dir/updated"
        apt_private_update "$name"
        touch "$dir/updated"
    else
        rm -f "$dir/sources.list.new"
    fi
}

# apt_private_update NAME: fetches the lists. A mirror that lags behind is used all the same, with
# a message: its signatures and hashes are checked as always.
apt_private_update() {
    local conf=$APT_DIR/$1/apt.conf log=$LOGS/apt-update-$1.log
    mkdir -p "$LOGS"
    apt-get -c "$conf" --error-on=any update >"$log" 2>&1 </dev/null && return
    if grep -q 'is expired' "$log"; then
        grep -o 'Release file for .* is expired ([^)]*)' "$log" | sed 's/^/  warning: /' >&2
        say "  warning: the mirror is behind; going on with what it has"
        apt-get -c "$conf" -o Acquire::Check-Valid-Until=false --error-on=any update \
            >"$log" 2>&1 </dev/null && return
    fi
    fail_with_log "apt-get update with $conf" "$log"
}

# apt_private_get NAME ARG..., apt_private_cache NAME ARG...
apt_private_get() { local name=$1 && shift && apt-get -c "$APT_DIR/$name/apt.conf" "$@"; }
apt_private_cache() { local name=$1 && shift && apt-cache -c "$APT_DIR/$name/apt.conf" "$@"; }

# apt_fetch CONFIG NAME...: downloads packages into build/cache/debs, without installing them, and
# prints their paths. What is there in the version that is wanted is not fetched again.
apt_fetch() { with_lock apt apt_fetch_locked "$@"; }
apt_fetch_locked() {
    local config=$1 dir=$BUILD/cache/debs name file log=$LOGS/apt-fetch.log
    shift
    mkdir -p "$dir/part" "$LOGS"
    for name; do
        # 'URI' NAME_VERSION_ARCH.deb SIZE HASH; nothing when the file is in the directory already.
        file=$(cd "$dir/part" && apt_private_get "$config" download --print-uris "$name" 2>"$log" |
            awk -v OFS=' ' '{ print $2 }')
        [[ -n $file ]] || fail_with_log "finding the package $name" "$log"
        if [[ ! -s $dir/$file ]]; then
            say "  fetching $file"
            (cd "$dir/part" && apt_private_get "$config" download "$name") >"$log" 2>&1 </dev/null ||
                fail_with_log "fetching the package $name" "$log"
            mv "$dir/part"/*.deb "$dir/$file"
        fi
        [[ -s $dir/$file ]] || die "apt-get fetched $name, but not as $file"
        printf '%s\n' "$dir/$file"
    done
}

# apt_fetch_all CONFIG EXCEPT NAME...: downloads packages and all that they depend on, as if nothing
# were installed, but for those whose names match the regular expression EXCEPT; prints their paths.
apt_fetch_all() { with_lock apt apt_fetch_all_locked "$@"; }
apt_fetch_all_locked() {
    local config=$1 except=$2 dir=$BUILD/cache/debs log=$LOGS/apt-fetch.log files file missing=()
    # Installed versions also influence which version is the candidate.
    local nothing=(-o "Dir::State::status=$dir/nothing-installed")
    shift 2
    mkdir -p "$dir/part" "$LOGS"
    : >"$dir/nothing-installed"
    mapfile -t files < <(apt_private_get "$config" "${nothing[@]}" \
        --no-install-recommends --yes --print-uris install "$@" 2>"$log" | awk '/^\047/ { print $2 }' | grep -Ev "$except")
    ((${#files[@]})) || fail_with_log "finding the packages $*" "$log"
    for file in "${files[@]}"; do
        [[ -s $dir/$file ]] || missing+=("${file%%_*}")
    done
    if ((${#missing[@]})); then
        say "  fetching ${#missing[@]} packages"
        (cd "$dir/part" && apt_private_get "$config" "${nothing[@]}" download "${missing[@]}") >"$log" 2>&1 </dev/null ||
            fail_with_log "fetching the packages ${missing[*]}" "$log"
        mv "$dir/part"/*.deb "$dir/"
    fi
    printf '%s\n' "${files[@]/#/$dir/}"
}

# apt_backports: the private configuration `backports`: the machine's Debian suites and, on Debian
# 12, its backports, from which nothing is installed unless it is asked for.
apt_backports() {
    local sources=(machine)
    [[ $(debian_codename) != bookworm ]] || sources+=("deb bookworm-backports main")
    apt_private backports "${sources[@]}"
}

# apt_kernel: prints the name of the package with the newest kernel in `backports`, e.g.
# linux-image-6.12.88+deb13-amd64; its headers' and modules' names follow from it.
apt_kernel() {
    local name
    apt_backports
    name=$(apt_private_cache backports show linux-image-amd64 2>/dev/null |
        sed -n 's/^Depends: .*\(linux-image-[0-9][^ ,]*\).*/\1/p' | sort -Vr | head -n 1)
    [[ -n $name ]] || die "Debian's linux-image-amd64 was not found with $APT_DIR/backports/apt.conf"
    printf '%s\n' "$name"
}
