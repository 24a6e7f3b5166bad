package bench

import (
	"strings"
	"unicode/utf8"
)

// Markdown returns rows of cells as a Markdown table that is also readable as plain text. The first row is the
// heading. The first left columns are aligned to the left and the others to the right.
func Markdown(rows [][]string, left int) string {
	if len(rows) == 0 {
		return ""
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c), 3)
		}
	}
	var b strings.Builder
	line := func(cell func(column, width int) string) {
		for i, width := range widths {
			b.WriteString("| " + cell(i, width) + " ")
		}
		b.WriteString("|\n")
	}
	for n, row := range rows {
		line(func(i, width int) string {
			pad := strings.Repeat(" ", width-utf8.RuneCountInString(row[i]))
			if i < left {
				return row[i] + pad
			}
			return pad + row[i]
		})
		if n > 0 {
			continue
		}
		line(func(i, width int) string {
			if i < left {
				return strings.Repeat("-", width)
			}
			return strings.Repeat("-", width-1) + ":"
		})
	}
	return b.String()
}
