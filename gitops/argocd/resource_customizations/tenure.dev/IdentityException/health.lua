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
