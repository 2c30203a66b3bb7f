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
