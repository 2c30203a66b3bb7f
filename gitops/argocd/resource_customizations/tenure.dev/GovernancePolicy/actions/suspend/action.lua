-- No further act wherever this policy applies; what was done stays, clocks and guards too.
obj.spec.suspend = true
return obj
