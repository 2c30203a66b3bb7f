return {status = "Healthy", message = (status.outcome or "Undecided") .. ": " .. (status.message or "")}
