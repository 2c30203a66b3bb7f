#!/usr/bin/env bash
# Takes Tenure out of the cluster that kubectl points at, and leaves nothing behind that blocks a pod, a token, a binding or a
# Secret: tokens that a quarantine switched off are switched on again as they were, and subjects that one took out of bindings are
# put back (each is named). Succeeds when parts, or all
# of it, are missing. Records (findings, claims, exceptions, decisions) are deleted with their CRDs.
#   KUBECTL  the kubectl to use, with its options if any (default: kubectl)
#   TENURE_OPERATOR_NAMESPACE  where the operator is (default: where its rights are bound, else tenure-system)
#   RESTORE  0: leave quarantined tokens switched off, and subjects out of their bindings
#   TIMEOUT  seconds to wait for the end of each thing (default: 120)
set -euo pipefail

read -r -a kubectl <<<"${KUBECTL:-kubectl}"
timeout=${TIMEOUT:-120}
label=kubernetes.io/legacy-token-invalid-since

say() { printf 'tenure: %s\n' "$*"; }
die() { printf 'tenure: %s\n' "$*" >&2; exit 1; }
remove() { "${kubectl[@]}" delete --ignore-not-found --wait=false "$@" >/dev/null; }
crds() { "${kubectl[@]}" get crd -o 'jsonpath={range .items[?(@.spec.group=="tenure.dev")]}{.metadata.name}{"\n"}{end}'; }
quarantines_served() { "${kubectl[@]}" get crd quarantines.tenure.dev --ignore-not-found -o name | grep -q .; }

# Subjects that quarantines took out of bindings, each back in its place. As the operator would: only into the very binding (uid),
# with the same role, which grants what it granted then (its rules' digest). What is not put back is named.
put_subjects_back() {
  local template
  # shellcheck disable=SC2016  # the dollars are the template's
  template='{{range $q := .items}}{{with $q.status}}{{$gone := false}}{{range .revoked}}{{if and .done (eq .uid $q.spec.subject.uid)}}'
  # What continues a Quarantine does not say itself that the subject was revoked.
  # shellcheck disable=SC2016
  template+='{{$gone = true}}{{end}}{{end}}{{if $q.spec.continues}}{{range $h := $.items}}{{if and $h.status '
  # shellcheck disable=SC2016
  template+='(eq $h.metadata.namespace $q.metadata.namespace) (eq $h.metadata.name $q.spec.continues)}}{{range $h.status.revoked}}'
  # shellcheck disable=SC2016
  template+='{{if and .done (eq .uid $q.spec.subject.uid)}}{{$gone = true}}{{end}}{{end}}{{end}}{{end}}{{end}}'
  # shellcheck disable=SC2016
  template+='{{if not $gone}}{{range $b := .preImages}}{{range .removed}}{{$b.kind}}|'
  # shellcheck disable=SC2016
  template+='{{with $b.namespace}}{{.}}{{end}}|{{$b.name}}|{{$b.uid}}|{{$b.roleRef.kind}}|{{$b.roleRef.name}}|'
  # shellcheck disable=SC2016
  template+='{{with $b.roleRulesDigest}}{{.}}{{end}}|{{.index}}|{{.subject.kind}}|{{with .subject.apiGroup}}{{.}}{{end}}|'
  template+='{{with .subject.namespace}}{{.}}{{end}}|{{.subject.name}}{{"\n"}}{{end}}{{end}}{{end}}{{end}}{{end}}'
  "${kubectl[@]}" get quarantines.tenure.dev -A -o "go-template=$template" | sort -t '|' -k4,4 -k8,8n -u |
    while IFS='|' read -r kind namespace name uid role_kind role digest index subject group own who; do
      put_subject_back </dev/null
    done
}

put_subject_back() {
  local where=() place="$kind ${namespace:+$namespace/}$name" subject_is="$subject ${own:+$own/}$who" now rules there count value patch
  [[ -z $namespace ]] || where=(-n "$namespace")
  now=$("${kubectl[@]}" get "$kind" "$name" "${where[@]}" --ignore-not-found \
    -o 'jsonpath={.metadata.uid}|{.roleRef.kind}|{.roleRef.name}')
  if [[ $now != "$uid|$role_kind|$role" ]]; then
    say "$subject_is is not put back into $place: that binding is gone"
    return
  fi
  rules=
  if "${kubectl[@]}" get "$role_kind" "$role" "${where[@]}" >/dev/null 2>&1; then
    rules=$("${kubectl[@]}" get "$role_kind" "$role" "${where[@]}" -o 'jsonpath={range .rules[*]}{@}{"\n"}{end}' |
      LC_ALL=C sort | sha256sum | cut -d ' ' -f 1)
  fi
  if [[ $rules != "$digest" ]]; then
    say "$subject_is is not put back into $place: $role_kind $role grants something else by now"
    return
  fi
  there=$("${kubectl[@]}" get "$kind" "$name" "${where[@]}" \
    -o 'go-template={{range .subjects}}{{.kind}}|{{with .namespace}}{{.}}{{end}}|{{.name}}{{"\n"}}{{end}}')
  if ! grep -qxF "$subject|$own|$who" <<<"$there"; then
    count=$(grep -c . <<<"$there" || true)
    value="{\"kind\":\"$subject\",\"name\":\"$who\"${group:+,\"apiGroup\":\"$group\"}${own:+,\"namespace\":\"$own\"}}"
    patch="[{\"op\":\"add\",\"path\":\"/subjects/$((index < count ? index : count))\",\"value\":$value}]"
    ((count > 0)) || patch="[{\"op\":\"add\",\"path\":\"/subjects\",\"value\":[$value]}]"
    "${kubectl[@]}" patch "$kind" "$name" "${where[@]}" --type=json -p "$patch" >/dev/null
    say "$subject_is is back in $place"
  fi
  "${kubectl[@]}" annotate "$kind" "$name" "${where[@]}" tenure.dev/removed-subjects- >/dev/null
}

"${kubectl[@]}" version >/dev/null 2>&1 || die "no API server answers: $("${kubectl[@]}" version 2>&1 | tail -n 1)"

home=${TENURE_OPERATOR_NAMESPACE:-$("${kubectl[@]}" get clusterrolebinding tenure --ignore-not-found \
  -o 'jsonpath={.subjects[0].namespace}')}
home=${home:-tenure-system}

# Bindings before policies, so that no half of a guard is ever in force; then the operator's rights, so that one that still
# runs writes nothing back.
say "admission policies"
remove validatingadmissionpolicybindings -l app.kubernetes.io/part-of=tenure
remove validatingadmissionpolicies -l app.kubernetes.io/part-of=tenure
served=$("${kubectl[@]}" get --raw /apis/admissionregistration.k8s.io/v1)
if [[ $served == *'"mutatingadmissionpolicies"'* ]]; then  # from Kubernetes 1.36 on
  remove mutatingadmissionpolicybindings -l app.kubernetes.io/part-of=tenure
  remove mutatingadmissionpolicies -l app.kubernetes.io/part-of=tenure
fi
say "the operator's rights"
remove clusterrolebinding/tenure clusterrolebinding/tenure-entitlements

# Compiled policies stay in force for about a second.
finding='{"apiVersion":"tenure.dev/v1alpha1","kind":"IdentityFinding","metadata":{"name":"uninstall-probe","namespace":"default"},
"spec":{"rule":"Unowned","subject":{"kind":"ServiceAccount","name":"uninstall-probe"}}}'
deadline=$((SECONDS + timeout))
while [[ $("${kubectl[@]}" create --dry-run=server -f - <<<"$finding" 2>&1) == *"denied request"* ]]; do
  ((SECONDS < deadline)) || die "the admission policies are still enforced after $timeout s"
  sleep 0.2
done

if quarantines_served; then
  if [[ ${RESTORE:-1} != 0 ]]; then
    # shellcheck disable=SC2016  # the dollars are the template's
    template='{{range $q := .items}}{{if $q.status}}{{range $q.status.disabledTokens}}{{$q.metadata.namespace}} {{.name}} {{.uid}} '
    template+='{{if .labelBefore}}{{.labelBefore}}{{else}}-{{end}}{{"\n"}}{{end}}{{end}}{{end}}'
    "${kubectl[@]}" get quarantines.tenure.dev -A -o "go-template=$template" | sort -ru |
      # Where two Quarantines recorded one token, the row that says "no label before" comes last and counts.
      while read -r namespace name uid before; do
        # By uid: a namesake that somebody created meanwhile is not ours to touch. Gone is gone.
        now=$("${kubectl[@]}" get secret "$name" -n "$namespace" --ignore-not-found -o 'jsonpath={.metadata.uid}')
        [[ $now == "$uid" ]] || continue
        if [[ $before == - ]]; then
          "${kubectl[@]}" label secret "$name" -n "$namespace" "$label-" >/dev/null
          say "token Secret $namespace/$name works again, as before its quarantine"
        else
          "${kubectl[@]}" label secret "$name" -n "$namespace" --overwrite "$label=$before" >/dev/null
          say "token Secret $namespace/$name is off since $before, as before its quarantine"
        fi
      done
  fi
  [[ ${RESTORE:-1} == 0 ]] || put_subjects_back
fi

# An operator that was just writing may have created one more: finalizers come off until the CRDs are gone.
say "Quarantines' finalizers and custom resource definitions"
names=$(crds)
if [[ -n $names ]]; then
  # shellcheck disable=SC2086
  remove crd $names
  deadline=$((SECONDS + timeout))
  nudge=$((SECONDS + 3))
  while names=$(crds) && [[ -n $names ]]; do
    if ((SECONDS >= nudge)); then
      # The API server can lose its own retry of a deletion (a conflict with the status it has just written itself) and then
      # comes back to it minutes later: "storage is (re)initializing". Any change of the CRD makes it look again.
      # shellcheck disable=SC2086
      "${kubectl[@]}" annotate crd $names --overwrite "tenure.dev/uninstall=$SECONDS" >/dev/null 2>&1 || true
      nudge=$((SECONDS + 3))
    fi
    if quarantines_served; then
      held=$("${kubectl[@]}" get quarantines.tenure.dev -A --ignore-not-found \
        -o 'go-template={{range .items}}{{if .metadata.finalizers}}{{.metadata.name}} {{end}}{{end}}' 2>/dev/null) || held=
      if [[ -n $held ]]; then
        # One process for all of them; one that went meanwhile is no failure.
        { "${kubectl[@]}" get quarantines.tenure.dev -A -o json |
          "${kubectl[@]}" patch -f - --type=merge -p '{"metadata":{"finalizers":null}}' >/dev/null; } 2>/dev/null || true
      fi
    fi
    ((SECONDS < deadline)) || die "still there after $timeout s: ${names//$'\n'/ }
$("${kubectl[@]}" get crd -o 'jsonpath={range .items[?(@.spec.group=="tenure.dev")]}{.metadata.name}: {.status.conditions[?(@.type=="Terminating")].message}{"\n"}{end}')"
    sleep 0.2
  done
fi

say "rights and namespace"
remove clusterroles -l app.kubernetes.io/part-of=tenure
made=$("${kubectl[@]}" get namespace "$home" --ignore-not-found -o 'jsonpath={.metadata.labels.app\.kubernetes\.io/part-of}')
if [[ $home == tenure-system || $made == tenure ]]; then
  remove "namespace/$home"
  "${kubectl[@]}" wait --for=delete "namespace/$home" --timeout="${timeout}s" >/dev/null 2>&1 ||
    [[ -z $("${kubectl[@]}" get namespace "$home" --ignore-not-found -o name) ]] ||
    die "the namespace $home is still there after $timeout s"
else
  say "the namespace $home was not made by install.sh and stays, without what is Tenure's"
  remove -n "$home" -l app.kubernetes.io/part-of=tenure deployments,services,rolebindings,roles,secrets,serviceaccounts
  remove -n "$home" configmap/tenure-state
fi
say "uninstalled"
