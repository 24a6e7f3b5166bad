package bench

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// banned are phrases that make a reader stop, and what to write instead.
var banned = []struct {
	phrase  *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`(?i)\b(he|him|his|himself)\b`), "name the subject; a program is it"},
	{regexp.MustCompile(`(?i:\b(whoever|nobody who)\b)|(?:^|[.;:] )Who [a-z][^?.]*\.`), `name the subject: "a caller", "a member that ..."`},
	{regexp.MustCompile(`(?i)\banew\b`), "again"},
	{regexp.MustCompile(`(?i)\blately\b`), "recently"},
	{regexp.MustCompile(`(?i)\bin place of\b`), "instead of"},
	{regexp.MustCompile(`(?i)\bfor the case that\b`), "in case"},
	{regexp.MustCompile(`(?i)\bon its way\b`), "in flight, in transit"},
	{regexp.MustCompile(`(?i)\b(?:this|that|it|which) is no (?:[a-km-z]|l[a-np-z])[a-z]*`), "is not a"},
	{regexp.MustCompile(`(?i)[a-z] (also|too)[.;:]`), "put also before the verb"},
}

// quoted may contain a banned phrase for a reason.
var quoted = []string{
	"bench/style_test.go",
	"bench/README.md", // its tables come from recorded results
}

// TestStyle looks for banned phrases in every comment and page.
func TestStyle(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		if d.IsDir() {
			if base := d.Name(); base == ".git" || base == "bin" || base == "out" || base == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		for _, q := range quoted {
			if name == filepath.FromSlash(q) {
				return nil
			}
		}
		switch filepath.Ext(path) {
		case ".go":
			files++
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			for _, group := range f.Comments {
				style(t, name, fset.Position(group.Pos()).Line, group.Text())
			}
		case ".md":
			files++
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for i, line := range strings.Split(codeBlocks.ReplaceAllStringFunc(string(text), func(s string) string {
				return strings.Repeat("\n", strings.Count(s, "\n"))
			}), "\n") {
				style(t, name, i+1, line)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 300 {
		t.Errorf("only %d files: the walk has missed some", files)
	}
}

var (
	codeBlocks = regexp.MustCompile("(?s)```.*?```")
	code       = regexp.MustCompile("`[^`]*`|\"[^\"]*\"")
)

// style checks one paragraph; what is quoted or code does not count.
func style(t *testing.T, file string, line int, text string) {
	t.Helper()
	text = code.ReplaceAllString(strings.ReplaceAll(text, "\n", " "), "X")
	for _, b := range banned {
		if found := b.phrase.FindString(text); found != "" {
			t.Errorf("%s:%d: %q: %s", file, line, strings.TrimSpace(found), b.instead)
		}
	}
}

// TestStyleCatches shows that the phrases are found, and that their plain forms are not.
func TestStyleCatches(t *testing.T) {
	for text, want := range map[string]bool{
		"Who leaves takes only himself along.":     true,
		"A member answers. Who is late gets none.": true,
		"Who owns invalidation?":                   false,
		"a caller that starts anew":                true,
		"This is no error.":                        true,
		"There is no error.":                       false,
		"It is no longer there.":                   false,
		"It holds for tags too.":                   true,
		"It also holds for tags.":                  false,
		"used in place of the other":               true,
		"used instead of the other":                false,
	} {
		found := false
		for _, b := range banned {
			found = found || b.phrase.MatchString(text)
		}
		if found != want {
			t.Errorf("%q: found %v", text, found)
		}
	}
}
