# What the scripts that build peftool have in common. Sourced, not run.

# What `swift build` needs, and OpenBLAS, which peftool loads when it is first needed.
library_packages=(
  libjson-c-dev libyaml-dev libonig-dev libzstd-dev libxxhash-dev libutf8proc-dev pkg-config
  libopenblas0
)

# Ends the script, saying why.
fail() {
  echo "$(basename "$0"): $*" >&2
  exit 2
}

# Checks for Swift 6.3 or newer.
need_swift() {
  local advice="install Swift 6.3 or newer from https://www.swift.org/install and put it on PATH"
  command -v swift > /dev/null || fail "swift is not on PATH: $advice"
  local version
  version=$(swift --version 2> /dev/null | sed -n 's/.*Swift version \([0-9]*\.[0-9]*\).*/\1/p')
  [[ $(printf '%s\n' 6.3 "$version" | sort -V | head -n 1) == 6.3 ]] ||
    fail "found Swift ${version:-of an unknown version}: $advice"
}

# Installs those of the named Debian packages that are missing.
need_packages() {
  if ! command -v dpkg-query > /dev/null; then
    echo "This is not Debian or Ubuntu: install what these packages hold by hand: $*"
    return
  fi
  local package status missing=() root=()
  for package; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null) || true
    [[ $status == installed ]] || missing+=("$package")
  done
  (( ${#missing[@]} )) || return 0

  local by_hand="as root: apt-get update && apt-get install ${missing[*]}"
  command -v apt-get > /dev/null || fail "missing and no apt-get to install them: ${missing[*]}"
  if (( EUID )); then
    command -v sudo > /dev/null || fail "missing: ${missing[*]}; run $by_hand"
    root=(sudo)
  fi
  echo "Installing Debian packages: ${missing[*]}"
  local install=(
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive
    apt-get install -qq -y --no-install-recommends "${missing[@]}"
  )
  # The lists of packages may be absent or out of date.
  "${install[@]}" < /dev/null 2> /dev/null ||
    { "${root[@]}" apt-get update -qq && "${install[@]}" < /dev/null; } ||
    fail "cannot install ${missing[*]}; run $by_hand"
}
