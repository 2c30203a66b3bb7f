-- Healthy says that the spec was processed, never that anything is compliant: no finding makes an Application unhealthy.
local progressing = {
  status = "Progressing",
  message = "The operator has not processed this spec yet. If that lasts: kubectl get pods -n tenure-system",
}
local status = obj.status
if status == nil or status.observedGeneration ~= obj.metadata.generation then
  return progressing
end
local said = {}
for _, condition in ipairs(status.conditions or {}) do
  if condition.status == "True" then
    said[condition.type] = condition.message or ""
  end
end
if said.Stalled ~= nil then
  return {
    status = "Degraded",
    message = said.Stalled .. " Change the spec, or bring operator and kinds to one version.",
  }
end
if said.Ready == nil then
  return progressing
end

-- Waiting for an approval is not Suspended: a sync with waves, and `argocd app wait`, would wait with it, for days.
local notes = {}
local phase = status.phase
if phase == "Rejected" or phase == "Withdrawn" then
  notes[1] = phase .. ". " .. (status.message or "") .. " Delete it, or change its spec and ask again."
elseif phase == "Expired" then
  notes[1] = (status.message or "Expired.") .. " Delete it, or ask again with a later spec.expiresAt."
elseif phase == "Active" then
  notes[1] = (status.message or "Active.") .. " Until " .. obj.spec.expiresAt .. "."
end
for _, kind in ipairs({"DecisionPending", "Disallowed", "Unneeded"}) do
  if said[kind] ~= nil then
    notes[#notes + 1] = said[kind]
  end
end
return {status = "Healthy", message = table.concat(notes, " ")}
