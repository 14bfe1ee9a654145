# Functions that write teredo.toml from the output of `uci show teredo`.
#
# A line of that output is teredo.SECTION=TYPE or teredo.SECTION.OPTION='VALUE', and a list has several
# values in quotes. OpenWrt's shell is ash.

# Writes the configuration on standard output. Standard input is the output of `uci show teredo`.
uci_to_toml() {
	awk -v quote="'" '
	function fail(message) {
		print "teredo: /etc/config/teredo: " message > "/dev/stderr"
		failed = 1
		exit 1
	}
	# Returns a value in TOML: numbers and switches as they are, all else as a string. Names that consist
	# of digits are strings, too.
	function toml(key, value,    i, character, escaped) {
		if (key !~ /^(id|name|server|tun|user)$/ && value ~ /^(true|false|0|[1-9][0-9]*)$/) return value
		escaped = ""
		for (i = 1; i <= length(value); i++) {
			character = substr(value, i, 1)
			if (character == "\\" || character == "\"") escaped = escaped "\\"
			escaped = escaped character
		}
		return "\"" escaped "\""
	}
	# Splits quoted values into the array values, and returns their number. Two values are apart by one
	# space; a quote within a value is written as quote, backslash, quote, quote.
	function split_values(text, values,    count, value, escaped) {
		escaped = quote "\\" quote quote
		count = 0
		while (text != "") {
			if (substr(text, 1, 1) != quote) { values[++count] = text; break }
			text = substr(text, 2)
			value = ""
			while (1) {
				if (text == "") fail("a quote has no end")
				if (substr(text, 1, 4) == escaped) { value = value quote; text = substr(text, 5); continue }
				if (substr(text, 1, 1) == quote) { text = substr(text, 2); break }
				value = value substr(text, 1, 1)
				text = substr(text, 2)
			}
			values[++count] = value
			sub(/^ /, "", text)
		}
		return count
	}
	{
		equals = index($0, "=")
		if (equals == 0) next
		name = substr($0, 1, equals - 1)
		text = substr($0, equals + 1)
		parts = split(name, path, ".")
		if (parts == 2) {
			type[path[2]] = text
			order[++sections] = path[2]
			next
		}
		if (parts != 3) next
		section = path[2]
		key = path[3]
		if (key == "enabled") next
		gsub(/_/, "-", key)
		delete values
		count = split_values(text, values)
		is_list = count > 1 || key ~ /^(allow|extra-prefixes|interfaces|retired-secret-files|serve)$/
		line = toml(key, values[1])
		for (i = 2; i <= count; i++) line = line ", " toml(key, values[i])
		if (is_list) line = "[" line "]"
		lines[section] = lines[section] key " = " line "\n"
	}
	END {
		if (failed) exit 1
		print "# Written from /etc/config/teredo at each start; changes belong there."
		for (i = 1; i <= sections; i++) {
			section = order[i]
			kind = type[section]
			if (kind == "xdp") {
				heading = section
				sub(/_/, ".", heading)
				if (heading !~ /^(relay|server)\.xdp$/) fail("the section " section " of type xdp has to be named relay_xdp or server_xdp")
				heading = "[" heading "]"
			} else if (kind == "key") {
				heading = "[[server.client]]"
			} else if (kind ~ /^(node|relay|server|client)$/) {
				heading = "[" kind "]"
			} else {
				fail("the section " section " has the type " kind ", which has to be node, relay, server, client, xdp or key")
			}
			printf "\n%s\n%s", heading, lines[section]
		}
	}
	'
}
