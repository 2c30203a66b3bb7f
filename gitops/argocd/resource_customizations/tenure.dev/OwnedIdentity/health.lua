local notes = {}
if said.Vacant ~= nil then
  notes[#notes + 1] = said.Vacant .. " Apply that IdentityOwner, or name another one."
end
if said.Conflict ~= nil then
  notes[#notes + 1] = said.Conflict
end
if said.DecisionPending ~= nil then
  notes[#notes + 1] = said.DecisionPending
end
if status.expired ~= nil then
  notes[#notes + 1] = "It expired at " .. status.expired .. ". Set a later spec.expiresAt, or delete it."
end
if #notes == 0 then
  local matched = status.matched or {}
  local covered = (matched.serviceAccounts or 0) + (matched.secrets or 0) + (matched.external or 0)
  if covered == 0 then
    notes[1] = "It covers nothing yet."
  else
    notes[1] = "It covers " .. (matched.serviceAccounts or 0) .. " ServiceAccounts and "
      .. (matched.secrets or 0) .. " Secrets."
  end
end
return {status = "Healthy", message = table.concat(notes, " ")}
