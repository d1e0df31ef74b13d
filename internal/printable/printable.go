// Package printable makes names that come from files safe to print.
package printable

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Name returns name as it is if all of it can be printed, and quoted with Go's escapes otherwise: a tensor's name may be
// anything that a stranger has written into a file, and a terminal obeys what it is sent.
func Name(name string) string {
	if name != "" && utf8.ValidString(name) && strings.IndexFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return name
	}
	return strconv.Quote(name)
}
