# shellcheck shell=bash
# A series of patches, its folders and sets, and its commits in a small git repository; needs
# common.sh.

# series_lines FILE: what it says, without comments.
series_lines() { sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$1"; }

# series_files SERIES [SET]: the names of its patches, in order; of a set those in its folders.
series_files() {
    local folders file
    if [[ -z ${2:-} ]]; then
        series_lines "$ROOT/qemu-patches/$1/series"
        return
    fi
    folders=" $(set_folders "$1" "$2") "
    series_lines "$ROOT/qemu-patches/$1/series" | while read -r file; do
        [[ $folders != *" ${file%%/*} "* ]] || printf '%s\n' "$file"
    done
}

# series_sets SERIES: the names of its sets.
series_sets() {
    [[ ! -e $ROOT/qemu-patches/$1/sets ]] || series_lines "$ROOT/qemu-patches/$1/sets" | sed 's/:.*//'
}

# set_folders SERIES SET: the folders of a set.
set_folders() {
    local folders=''
    [[ ! -e $ROOT/qemu-patches/$1/sets ]] ||
        folders=$(series_lines "$ROOT/qemu-patches/$1/sets" | sed -n "s/^$2:[[:space:]]*//p")
    [[ -n $folders ]] ||
        die "the series $1 has no set $2; it has: $(series_sets "$1" | paste -sd ' ' | grep . || echo none)"
    printf '%s\n' "$folders"
}

# isolate_git: the user's git configuration must not change the patches, and the committer does not
# matter.
isolate_git() {
    export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
    export GIT_COMMITTER_NAME=series GIT_COMMITTER_EMAIL=series@localhost GIT_AUTHOR_NAME=series GIT_AUTHOR_EMAIL=series@localhost
}

# series_repository SERIES TREE DIR: a repository of the files of TREE in the directories that the
# patches touch: enough for git am, and for a patch to come.
series_repository() {
    local series=$1 tree=$2 repo=$3 directory
    git init --quiet --initial-branch=main "$repo"
    git -C "$repo" config core.abbrev 8
    series_files "$series" | (cd "$ROOT/qemu-patches/$series" && xargs sed -n 's,^--- a/,,p') | xargs -d '\n' dirname |
        sort -u | while read -r directory; do
        [[ ! -d $tree/$directory ]] || (cd "$tree" && find "$directory" -maxdepth 1 -type f ! -name '.git*' -exec cp --parents -t "$repo/" -- {} +)
    done
    git -C "$repo" add --all
    git -C "$repo" commit --quiet --message=pristine
    git -C "$repo" tag pristine
}
