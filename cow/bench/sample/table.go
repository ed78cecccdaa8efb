package sample

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Table is text in columns: the first flush left, the others flush right.
type Table struct {
	head []string
	rows [][]string // a row of one cell is a heading, an empty one a line
}

// NewTable returns a table with the given column heads.
func NewTable(head ...string) *Table { return &Table{head: head} }

// Row adds a row.
func (t *Table) Row(cells ...string) { t.rows = append(t.rows, cells) }

// Heading adds a line of text across the columns, with an empty line before it.
func (t *Table) Heading(text string) { t.rows = append(t.rows, []string{}, []string{text}) }

// Write prints the table.
func (t *Table) Write(w io.Writer) error {
	width := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		if len(row) < 2 {
			continue
		}
		for i, c := range row {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	for _, row := range append([][]string{t.head}, t.rows...) {
		if len(row) == 1 {
			b.WriteString(row[0])
		} else {
			for i, c := range row {
				pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
				switch {
				case i == 0:
					b.WriteString(c + pad)
				default:
					b.WriteString("  " + pad + c)
				}
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	if err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	return nil
}
