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
	BEGIN {
		# The keys that are true or false.
		switches = "^(accept-unsolicited|accounting|allow-tunnel|cone-probe|default-route|direct-bubbles|draft-flags" \
			"|forward-echo|forward-echo-replies|forward-foreign|hairpinning|honor-cone|host-specific|legacy-prefix" \
			"|legacy-server|load-reduction|local-discovery|only-without-ipv6|pin|port-mapping|port-preserving" \
			"|random-link-local|require-auth|route|sandbox|sequential|symmetric|tun-offload)$"
		# The keys whose values may consist of digits, and are strings all the same.
		strings = "^(id|interfaces|name|server|tun|user)$"
		# The keys with lists, also of one value.
		lists = "^(allow|extra-prefixes|interfaces|retired-secret-files|serve)$"
	}
	# Returns a value in TOML: switches in all words that UCI has for them, and numbers as they are.
	function toml(key, value,    i, character, escaped) {
		if (key ~ switches && value ~ /^(1|on|true|yes|enabled)$/) return "true"
		if (key ~ switches && value ~ /^(0|off|false|no|disabled)$/) return "false"
		if (key !~ strings && value ~ /^(0|[1-9][0-9]*)$/) return value
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
	# Returns the heading of a section in TOML.
	function heading(section,    kind, name) {
		kind = type[section]
		if (kind == "xdp") {
			name = section
			sub(/_/, ".", name)
			if (name !~ /^(relay|server)\.xdp$/) fail("the section " section " of type xdp has to be named relay_xdp or server_xdp")
			return "[" name "]"
		}
		if (kind == "key") return "[[server.client]]"
		if (kind == "ipfix") return "[node.ipfix]"
		if (kind == "fleet") return "[relay.fleet]"
		if (kind ~ /^(node|relay|server|client)$/) return "[" kind "]"
		fail("the section " section " has the type " kind ", which has to be node, relay, server, client, xdp, fleet, ipfix or key")
	}
	# Adds a line to the section with this heading, and the section if there is none.
	function add(wanted, line,    i) {
		for (i = 1; i <= sections && headings[i] != wanted; i++);
		if (i > sections) headings[++sections] = wanted
		lines[i] = lines[i] line "\n"
	}
	{
		equals = index($0, "=")
		if (equals == 0) next
		name = substr($0, 1, equals - 1)
		text = substr($0, equals + 1)
		parts = split(name, path, ".")
		section = path[2]
		if (parts == 2) {
			type[section] = text
			headings[++sections] = heading(section)
			next
		}
		if (parts != 3) next
		key = path[3]
		if (key == "enabled" && type[section] == "node") next
		if (key == "enabled") fail("the section " section " has the option enabled, which only node has: remove the section instead")
		gsub(/_/, "-", key)
		delete values
		count = split_values(text, values)
		line = toml(key, values[1])
		if (key == "user") user = values[1]
		if (key == "pin") {
			has_pin[headings[sections]] = 1
			if (line == "true") pinned = section
		}
		for (i = 2; i <= count; i++) line = line ", " toml(key, values[i])
		if (count > 1 || key ~ lists) line = "[" line "]"
		lines[sections] = lines[sections] key " = " line "\n"
	}
	END {
		if (failed) exit 1
		# The user that the package has made, to whom pins are out of reach.
		if (user == "") {
			user = "teredo"
			add("[node]", "user = \"teredo\"")
		}
		if (user != "root") {
			if (pinned) fail("the section " pinned " has the option pin, which needs the option user with the value root in the section node")
			for (i = sections; i >= 1; i--) {
				if (headings[i] !~ /^\[(relay|server)[].]/) continue
				wanted = headings[i] ~ /^\[relay/ ? "[relay.xdp]" : "[server.xdp]"
				if (!has_pin[wanted]++) add(wanted, "pin = false")
			}
		}
		print "# Written from /etc/config/teredo at each start; changes belong there."
		for (i = 1; i <= sections; i++) printf "\n%s\n%s", headings[i], lines[i]
	}
	'
}
