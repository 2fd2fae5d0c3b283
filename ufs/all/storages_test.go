package all_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/all"
)

const storagesPage = "../../docs/storages.md"

// tabled is an Opener that tells its options.
type tabled interface{ OptionTable() ufs.OptionTable }

// TestStoragesPageHasEveryOption fails when an option is not in docs/storages.md as
// it is in the code, or the page has one that no storage knows. The page has a
// table of rows "| `name` | values | default | meaning |" below the heading
// "### Options of SCHEME", and one for what all storages have.
func TestStoragesPageHasEveryOption(t *testing.T) {
	t.Parallel()
	page := pageTables(t)
	common := map[string]bool{}
	for _, o := range ufs.CommonOptions(0) {
		common[o.Name] = true
	}
	// Its default is each storage's own.
	inAll := slices.DeleteFunc(ufs.CommonOptions(0), func(o ufs.Option) bool { return o.Name == ufs.OptionMaxOpLifetime })
	checkRows(t, "every storage", page["every storage"], inAll)
	for _, o := range all.Openers(nil, nil) {
		scheme := o.Schemes()[0]
		own := slices.DeleteFunc(o.(tabled).OptionTable(), func(o ufs.Option) bool { return common[o.Name] && o.Name != ufs.OptionMaxOpLifetime })
		checkRows(t, scheme, page[scheme], own)
	}
	if len(page["every storage"]) == 0 {
		t.Error("no table was found: this test no longer reads the page")
	}
}

// pageTables returns the rows below each heading, without their last cell.
func pageTables(t *testing.T) map[string]map[string]string {
	t.Helper()
	b, err := os.ReadFile(storagesPage)
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string]map[string]string{}
	for _, part := range strings.Split(string(b), "\n### Options of ")[1:] {
		heading, body, _ := strings.Cut(part, "\n")
		body, _, _ = strings.Cut(body, "\n#")
		rows := map[string]string{}
		for line := range strings.Lines(body) {
			cells := strings.SplitN(line, " | ", 4)
			if name, ok := strings.CutPrefix(cells[0], "| `"); ok && len(cells) == 4 {
				rows[strings.TrimSuffix(name, "`")] = strings.Join(cells[:3], " | ")
			}
		}
		tables[strings.Trim(heading, "`:/ ")] = rows
	}
	return tables
}

func checkRows(t *testing.T, of string, rows map[string]string, table ufs.OptionTable) {
	t.Helper()
	known := map[string]bool{}
	for _, o := range table {
		known[o.Name] = true
		want := fmt.Sprintf("| `%s` | %s | %s", o.Name, values(o), byDefault(o))
		if rows[o.Name] != want {
			t.Errorf("docs/storages.md, options of %s:\n has  %s\n want %s | %s |", of, rows[o.Name], want, o.Help)
		}
	}
	for name := range rows {
		if !known[name] {
			t.Errorf("docs/storages.md, options of %s: there is no option %q", of, name)
		}
	}
}

// values says what an option may be, as the page does.
func values(o ufs.Option) string {
	bounds := func(kind string, format func(int64) string) string {
		switch {
		case o.Min == 0 && o.Max == 0:
			return kind
		case o.Min == 0 && kind == "number":
			return "0 to " + format(o.Max)
		case o.Min == 0:
			return "up to " + format(o.Max)
		}
		return format(o.Min) + " to " + format(o.Max)
	}
	switch o.Type {
	case ufs.OptionBool:
		return "`true`, `false`"
	case ufs.OptionInt:
		return bounds("number", func(n int64) string { return fmt.Sprint(n) })
	case ufs.OptionOctal:
		return bounds("number", func(n int64) string { return fmt.Sprintf("%#o", n) })
	case ufs.OptionSize:
		return bounds("size", freshet.FormatSize)
	case ufs.OptionDuration:
		return bounds("time", func(n int64) string { return short(time.Duration(n)) })
	case ufs.OptionChoice:
		return "`" + strings.Join(o.Choices, "`, `") + "`"
	case ufs.OptionSecret:
		return "reference"
	default:
		return "text"
	}
}

// short is a duration without what is zero at its end.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func byDefault(o ufs.Option) string {
	text := o.Default
	if o.Type == ufs.OptionDuration && text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			return "not a duration: " + text
		}
		text = short(d)
	}
	if text == "" {
		return "–"
	}
	return "`" + text + "`"
}
