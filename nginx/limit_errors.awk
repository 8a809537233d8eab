# Passes nginx's error log on: in ten seconds 20 lines of each kind, then how many more there were. While the API is away
# nginx writes a line for each address that it tries for each request.
BEGIN { most = 20; most_kinds = 200 }

{
  window = substr($0, 1, 18)  # of the time, but for the last digit
  if (window != current) { tell(); current = window }
  kind = $0
  sub(/^[^\]]*\] [0-9#]+: /, "", kind)  # time, level, process
  sub(/^\*[0-9]+ /, "", kind)           # connection
  sub(/, client: .*/, "", kind)
  gsub(/[0-9]+/, "#", kind)
  if (!(kind in lines) && ++kinds > most_kinds) kind = "others"
  if (++lines[kind] <= most) { print; fflush() }
}

END { tell() }

function tell(  kind) {
  for (kind in lines)
    if (lines[kind] > most) print current "0 " lines[kind] - most " more of these lines in 10 s were left out: " kind
  fflush()
  split("", lines)
  kinds = 0
}
