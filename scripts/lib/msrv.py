"""Reads `cargo metadata` and fails if a package needs a newer Rust than the version given."""

import json
import sys


def version(text):
    return tuple(int(part) for part in text.split("."))


def main():
    minimum = sys.argv[1]
    metadata = sys.stdin.read()
    if not metadata:
        # Cargo has said why.
        return "cargo metadata names no packages"
    packages = json.loads(metadata)["packages"]
    newer = [f"{package['name']} {package['version']} needs Rust {package['rust_version']}"
             for package in packages
             if package["rust_version"] and version(package["rust_version"])[:2] > version(minimum)[:2]]
    for line in newer:
        print(line)
    print(f"{len(packages)} packages, {len(newer)} of them need more than Rust {minimum}")
    return 1 if newer else 0


if __name__ == "__main__":
    sys.exit(main())
