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

local notes = {}
if said.Conflict ~= nil then
  notes[1] = said.Conflict
end
if obj.spec.suspend then
  table.insert(notes, 1, "Suspended: nothing is acted on; guards and clocks stay. Set spec.suspend to false, or use the action resume.")
  return {status = "Suspended", message = table.concat(notes, " ")}
end
if #notes == 0 then
  notes[1] = "It applies to " .. (status.namespaces or 0) .. " namespaces and enforces in "
    .. (status.enforcing or 0) .. "."
  if (status.enforcing or 0) == 0 then
    notes[2] = "To enforce, label a namespace so that spec.enforceIn matches it."
  end
end
return {status = "Healthy", message = table.concat(notes, " ")}
