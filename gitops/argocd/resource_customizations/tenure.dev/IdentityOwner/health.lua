local notes = {}
if said.NobodyMayDecide ~= nil then
  notes[#notes + 1] = said.NobodyMayDecide
end
if obj.spec.suspended then
  table.insert(notes, 1, "Suspended: it answers for nothing. Set spec.suspended to false, or name another owner in its "
    .. (status.claims or 0) .. " claims.")
  return {status = "Suspended", message = table.concat(notes, " ")}
end
if said.Vacant ~= nil then
  table.insert(notes, 1, said.Vacant .. " Change spec.backup and spec.escalation so that they end with somebody.")
end
if #notes == 0 then
  notes[1] = "Named by " .. (status.claims or 0) .. " claims."
end
return {status = "Healthy", message = table.concat(notes, " ")}
