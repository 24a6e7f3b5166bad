package bench

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestExportedHaveComments checks that every exported name of every package has a comment, and every package a
// package comment.
func TestExportedHaveComments(t *testing.T) {
	for _, dir := range packages(t) {
		set := token.NewFileSet()
		var files []*ast.File
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(set, name, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		if len(files) == 0 {
			continue
		}
		missing := func(pos token.Pos, name string) { t.Errorf("%s: %s has no comment", set.Position(pos), name) }
		if !slices.ContainsFunc(files, func(f *ast.File) bool { return f.Doc != nil }) {
			missing(files[0].Package, "package "+files[0].Name.Name)
		}
		if files[0].Name.Name == "main" {
			continue
		}
		p, err := doc.NewFromFiles(set, files, "p")
		if err != nil {
			t.Fatal(err)
		}
		functions := func(list []*doc.Func) {
			for _, f := range list {
				if f.Doc == "" && !promised(f.Name) {
					missing(f.Decl.Pos(), f.Name)
				}
			}
		}
		values := func(list []*doc.Value) {
			for _, v := range list {
				for _, spec := range v.Decl.Specs {
					s := spec.(*ast.ValueSpec)
					if v.Doc == "" && s.Doc == nil && s.Comment == nil && s.Names[0].IsExported() {
						missing(s.Pos(), s.Names[0].Name)
					}
				}
			}
		}
		functions(p.Funcs)
		values(append(p.Consts, p.Vars...))
		for _, typ := range p.Types {
			if typ.Doc == "" {
				missing(typ.Decl.Pos(), typ.Name)
			}
			functions(append(typ.Funcs, typ.Methods...))
			values(append(typ.Consts, typ.Vars...))
		}
	}
}

// promised reports whether a method's name explains itself because a well-known interface requires it.
func promised(name string) bool {
	return slices.Contains([]string{"Error", "Unwrap", "Is", "MarshalText", "UnmarshalText", "MarshalJSON", "UnmarshalJSON", "Read", "Write", "Close",
		"LocalAddr", "RemoteAddr", "SetDeadline", "SetReadDeadline", "SetWriteDeadline", "Len", "Less", "Swap"}, name)
}

// packages returns the directories with Go files of this module and of the modules inside it.
func packages(t *testing.T) (dirs []string) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if name := d.Name(); name == "testdata" || name == "bin" || strings.HasPrefix(name, ".") && name != ".." {
			return fs.SkipDir
		}
		dirs = append(dirs, path)
		return nil
	})
	if err != nil || len(dirs) < 20 {
		t.Fatalf("%d directories, %v", len(dirs), err)
	}
	if _, err := os.Stat("../go.mod"); err != nil {
		t.Fatal(err)
	}
	return dirs
}
