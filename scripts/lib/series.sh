# shellcheck shell=bash
# A series of patches, and its commits in a small git repository; needs common.sh.

# series_files SERIES: the names of its patches, in order.
series_files() {
    sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$ROOT/qemu-patches/$1/series"
}

# isolate_git: what the user's git is told must not change what becomes of the patches, and nobody sees who commits them here.
isolate_git() {
    export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
    export GIT_COMMITTER_NAME=series GIT_COMMITTER_EMAIL=series@localhost GIT_AUTHOR_NAME=series GIT_AUTHOR_EMAIL=series@localhost
}

# series_repository SERIES TREE DIR: a repository of the files of TREE that the patches touch, which is enough for git am.
series_repository() {
    local series=$1 tree=$2 repo=$3
    git init --quiet --initial-branch=main "$repo"
    git -C "$repo" config core.abbrev 8
    series_files "$series" | (cd "$ROOT/qemu-patches/$series" && xargs sed -n 's,^--- a/,,p') | sort -u | while read -r file; do
        [[ ! -e $tree/$file ]] || (cd "$tree" && cp --parents "$file" "$repo/")
    done
    git -C "$repo" add --all
    git -C "$repo" commit --quiet --message=pristine
    git -C "$repo" tag pristine
}
