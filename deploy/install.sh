#!/usr/bin/env bash
# Puts CRDs, RBAC and admission policies into the cluster that kubectl points at, and waits until they are effective.
# May be run again at any time.
#   KUBECTL       the kubectl to use, with its options if any (default: kubectl)
#   ENTITLEMENTS  1: also give the operator the right to change bindings; 0: take it away; unset: leave it as it is
#   DENYWRITES    1: also install the policy behind the stage DenyWrites; 0: take it away; unset: leave it as it is
#   DECIDERS      ServiceAccounts that may decide, such as system:serviceaccount:ci:approver, with commas between them;
#                 empty: none; unset: leave it as it is (none, at first)
#   TENURE_OPERATOR_NAMESPACE   where the operator is; unset: where it is installed (tenure-system, at first)
#   TENURE_PLATFORM_NAMESPACES  namespaces of the platform beside kube-*, with commas between them, which the guards on pods, tokens
#                               and Secrets skip; empty: none; unset: leave it as it is (none, at first). The operator needs the same
#   TIMEOUT       seconds to wait until everything is effective (default: 120)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
crds=$here/../crds
read -r -a kubectl <<<"${KUBECTL:-kubectl}"
timeout=${TIMEOUT:-120}

say() { printf 'tenure: %s\n' "$*"; }
die() { printf 'tenure: %s\n' "$*" >&2; exit 1; }
# Policies are created or replaced, never merged: their variables may only use those before them, and server-side apply merges
# that list by name, so that an upgrade could end in another order than the file's, and be refused. A controller writes their
# status at any time, which makes a replacement collide.
replace() {
  local answer left
  "${kubectl[@]}" create "${@/#/--filename=}" >/dev/null 2>&1 && return
  until answer=$("${kubectl[@]}" replace "${@/#/--filename=}" 2>&1); do
    left=$(grep -v -e ' replaced$' -e 'object has been modified' <<<"$answer") || continue
    die "$left"
  done
}
apply() { "${kubectl[@]}" apply --server-side --force-conflicts --field-manager=tenure-install "${@/#/--filename=}" >/dev/null; }

"${kubectl[@]}" version >/dev/null 2>&1 || die "no API server answers: $("${kubectl[@]}" version 2>&1 | tail -n 1)"

# The name is a literal in the files, in expressions too.
found=$("${kubectl[@]}" get clusterrolebinding tenure --ignore-not-found -o 'jsonpath={.subjects[0].namespace}')
home=${TENURE_OPERATOR_NAMESPACE:-${found:-tenure-system}}
name='[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?'
[[ $home =~ ^$name$ && $home != default && $home != kube-* ]] ||
  die "TENURE_OPERATOR_NAMESPACE: '$home' is no name for a namespace of its own, such as tenure-system; default and kube-* are not"
[[ -z $found || $found == "$home" ]] ||
  die "TENURE_OPERATOR_NAMESPACE: Tenure is installed in $found, not in $home: release what is quarantined and uninstall first"
if [[ $home != tenure-system ]]; then
  labels=$("${kubectl[@]}" get namespace "$home" --ignore-not-found -o 'jsonpath={.kind} {.metadata.labels.app\.kubernetes\.io/part-of}')
  [[ -z $labels || $labels == 'Namespace tenure' ]] ||
    die "TENURE_OPERATOR_NAMESPACE: the namespace $home is there and not Tenure's: uninstall.sh would remove it whole; name another"
fi

# Of the platform's, kube-* are skipped anyway.
skipped() {
  "${kubectl[@]}" get validatingadmissionpolicy tenure-guard-pods --ignore-not-found \
    -o 'jsonpath={range .spec.matchConstraints.namespaceSelector.matchExpressions[0].values[*]}{@} {end}'
}
read -r -a platform <<<"$(tr , ' ' <<<"${TENURE_PLATFORM_NAMESPACES-$(skipped)}")"
also='' told=''
for one in "${platform[@]}"; do
  [[ $one =~ ^$name$ ]] || die "TENURE_PLATFORM_NAMESPACES: '$one' is no name of a namespace; no patterns"
  [[ $one != "$home" ]] ||
    die "TENURE_PLATFORM_NAMESPACES: $one is the operator's own, where it proves that its guards are in force: leave it out"
  [[ $one != kube-* ]] || continue
  also+=", \"$one\"" told+="${told:+,}$one"
done

# Whom the guard on decisions lists is its annotation, and the same once more where its expressions can read it.
listed() {
  "${kubectl[@]}" get validatingadmissionpolicy tenure-own-decisions --ignore-not-found \
    -o 'jsonpath={.metadata.annotations.tenure\.dev/deciders}'
}
deciders=${DECIDERS-$(listed)}
account='system:serviceaccount:[a-z0-9-]+:[a-z0-9.-]+'
[[ -z $deciders || $deciders =~ ^$account(,$account)*$ ]] ||
  die "DECIDERS: '$deciders' is no list of ServiceAccounts such as system:serviceaccount:ci:approver,system:serviceaccount:ci:other"
[[ ,$deciders, != *,"system:serviceaccount:$home:tenure",* ]] ||
  die "DECIDERS: the operator of Tenure carries decisions out and makes none; leave it out"

# What is still being deleted (a CRD with its objects) would take the new one with it.
ours=("namespace/$home")
for file in "$crds"/*.yaml; do
  ours+=("customresourcedefinition/$(basename "$file" .yaml)")
done
leaving=$("${kubectl[@]}" get "${ours[@]}" --ignore-not-found \
  -o 'jsonpath={range .items[?(@.metadata.deletionTimestamp)]}{.kind} {.metadata.name}{"\n"}{end}')
while read -r kind name; do
  [[ -n $kind ]] || continue
  case $kind in
  Namespace) what="the namespace $name" ;;
  *) what="the CRD $name" ;;
  esac
  say "waiting for the end of $what, which is being deleted"
  "${kubectl[@]}" wait --for=delete "$kind/$name" --timeout="${timeout}s" >/dev/null </dev/null ||
    die "$what is stuck in its deletion: run uninstall.sh first"
done <<<"$leaving"

say "custom resource definitions"
apply "$crds"
"${kubectl[@]}" wait --for=condition=Established --timeout="${timeout}s" -f "$crds" >/dev/null

# A policy is enforced once this dry run of a creation (its path, and JSON) is refused in its name. Asked several times in a row,
# because there may be several API servers behind the address, and each compiles policies on a loop of its own.
await_refusal() {
  local policy=$1 path=$2 object=$3 answer refused=0 deadline=$((SECONDS + timeout))
  while ((refused < 3)); do
    answer=$("${kubectl[@]}" create --raw "$path?dryRun=All" -f - <<<"$object" 2>&1) || true
    if [[ $answer == *"'$policy'"*"denied request"* ]]; then
      refused=$((refused + 1))
    else
      refused=0
      ((SECONDS < deadline)) || die "the policy $policy is not enforced after $timeout s; the API server says: $answer"
      sleep 0.2
    fi
  done
}

rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
for file in "$here"/*.yaml; do
  sed "s|tenure-system|$home|g" "$file" >"$rendered/$(basename "$file")"
done
apply "$rendered/00-namespace.yaml"
own=/apis/tenure.dev/v1alpha1/namespaces/$home

# Stamps come first: before them nobody could write an exception without naming himself. They are in force once a dry run comes
# back with its author in it.
stamped=false
served=$("${kubectl[@]}" get --raw /apis/admissionregistration.k8s.io/v1)
if [[ $served == *'"mutatingadmissionpolicies"'* ]]; then
  stamped=true
  say "stamps: this API server writes by, grantedBy and requestedBy itself"
  replace "$rendered/stamps.yaml"
  probe='{"apiVersion":"tenure.dev/v1alpha1","kind":"IdentityException","metadata":{"name":"install-probe","namespace":"'"$home"'"},
"spec":{"target":{"kind":"Secret","name":"install-probe"},"rules":["LegacyToken"],"class":"Migration","owner":"install-probe",
"justification":"install-probe","expiresAt":"2999-01-01T00:00:00Z","requestedBy":"install-probe"}}'
  seen=0 deadline=$((SECONDS + timeout))
  while ((seen < 3)); do
    if answer=$("${kubectl[@]}" create --raw "$own/identityexceptions?dryRun=All" -f - <<<"$probe" 2>&1) &&
      [[ $answer == *'"requestedBy":"'* && $answer != *'"requestedBy":"install-probe"'* ]]; then
      seen=$((seen + 1))
    else
      seen=0
      ((SECONDS < deadline)) || die "the stamps are not in force after $timeout s; the API server says: $answer"
      sleep 0.2
    fi
  done
else
  say "no stamps: this API server has none (Kubernetes 1.36 has); people write by and requestedBy, and both are checked"
fi

say "admission policies"
for file in "$rendered"/[1-5]*.yaml; do
  sed -i -e "s|tenure.dev/deciders: \"\"|tenure.dev/deciders: \"$deciders\"|" -e "s|\"''.split|\"'$deciders'.split|" \
    -e "/name: stamped/{n;s|false|$stamped|;}" -e "s|values: \[kube-system, kube-public, kube-node-lease|&$also|" "$file"
done
replace "$rendered"/[1-5]*.yaml
await_refusal tenure-own-kinds "$own/identityfindings" '{"apiVersion":"tenure.dev/v1alpha1","kind":"IdentityFinding",
"metadata":{"name":"install-probe","namespace":"'"$home"'"},
"spec":{"rule":"Unowned","subject":{"kind":"ServiceAccount","name":"install-probe"}}}'

# Rights come after what holds them is in force.
say "the operator's rights"
apply "$rendered"/[6-9]*.yaml
case ${ENTITLEMENTS:-} in
1)
  say "the right to change bindings (ENTITLEMENTS=1)"
  replace "$rendered/entitlements-limits.yaml"
  bindings=/apis/rbac.authorization.k8s.io/v1/namespaces/$home/rolebindings
  await_refusal tenure-own-removed-subjects "$bindings" '{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding",
"metadata":{"name":"install-probe","namespace":"'"$home"'","annotations":{"tenure.dev/removed-subjects":"User:install-probe"}},
"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"}}'
  apply "$rendered/entitlements.yaml"
  ;;
0)
  say "taking away the right to change bindings (ENTITLEMENTS=0)"
  "${kubectl[@]}" delete -f "$here/entitlements.yaml" --ignore-not-found >/dev/null
  "${kubectl[@]}" delete -f "$here/entitlements-limits.yaml" --ignore-not-found >/dev/null
  ;;
esac
case ${DENYWRITES:-} in
1)
  say "the stage DenyWrites (DENYWRITES=1)"
  replace "$rendered/deny-writes.yaml"
  ;;
0)
  say "taking away the stage DenyWrites (DENYWRITES=0)"
  "${kubectl[@]}" delete -f "$here/deny-writes.yaml" --ignore-not-found >/dev/null
  ;;
"") ;;
*) die "DENYWRITES is 1, 0 or unset" ;;
esac
[[ $home == tenure-system ]] || say "the operator is told its namespace: TENURE_OPERATOR_NAMESPACE=$home"
[[ -z $told ]] || say "the guards skip $told; the operator is told them too, or it acts on nothing: TENURE_PLATFORM_NAMESPACES=$told"
say "installed"
