package printable

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text returns text with Go's escapes in the place of what cannot be printed, line breaks among it, and else as it is:
// text may have names in it that [Name] has not been asked for.
func Text(text string) string {
	printed := func(r rune, size int) bool { return unicode.IsPrint(r) && (r != utf8.RuneError || size > 1) }
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		if printed(r, size) {
			b.WriteString(text[i : i+size])
		} else {
			quoted := strconv.Quote(text[i : i+size])
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += size
	}
	return b.String()
}
