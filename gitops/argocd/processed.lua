-- Healthy says that the spec was processed, never that anything is compliant: no finding makes an Application unhealthy.
local progressing = {
  status = "Progressing",
  message = "The operator has not processed this spec yet. If that lasts: kubectl get pods -A -l app.kubernetes.io/name=tenure",
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

