package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/tools/go/packages"
)

const (
	// maxLines is how many lines a file has at most, tests aside.
	maxLines = 500
	// maxParams is how many parameters a function has at most.
	maxParams = 6
)

// figures describe a package without its tests.
type figures struct {
	path    string
	files   int
	lines   int
	circle  int    // files of the largest set in which each file needs every other, directly or not
	methods string // the type with the most methods, and their number
	fields  string // the struct with the most fields, and their number
}

// house checks the size of files and functions, and returns the figures of each package.
func house(pkgs []*packages.Package) (all []figures, findings []finding) {
	for _, p := range pkgs {
		if strings.Contains(p.ID, " [") || strings.HasSuffix(p.PkgPath, "_test") { // compiled with its tests, or a package of tests
			continue
		}
		f := figures{path: p.PkgPath, files: len(p.Syntax)}
		if base := path.Base(p.PkgPath); base == "util" || base == "utils" || base == "common" || base == "helpers" {
			findings = append(findings, finding{p.Fset.Position(p.Syntax[0].Package), "house", "a package is named after what it has, not " + base})
		}
		for _, file := range p.Syntax {
			at := p.Fset.Position(file.FileEnd)
			lines := at.Line - 1 // a file ends with a newline
			f.lines += lines
			if lines > maxLines {
				findings = append(findings, finding{p.Fset.Position(file.Package), "house", fmt.Sprintf("%d lines, at most %d: split the file by noun", lines, maxLines)})
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if t, ok := n.(*ast.FuncType); ok && t.Params.NumFields() > maxParams {
					findings = append(findings, finding{p.Fset.Position(t.Pos()), "house", fmt.Sprintf("%d parameters, at most %d: use a struct", t.Params.NumFields(), maxParams)})
				}
				return true
			})
		}
		f.circle = largestCircle(p)
		f.methods, f.fields = largestTypes(p.Types)
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b figures) int { return cmp.Compare(b.lines, a.lines) })
	return all, findings
}

// printFigures writes the figures as a table.
func printFigures(w io.Writer, all []figures) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "package\tfiles\tlines\tlargest circle\tmost methods\tmost fields")
	for _, f := range all {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t%s\n", f.path, f.files, f.lines, f.circle, f.methods, f.fields)
	}
	return t.Flush()
}

// largestTypes returns the type with the most methods and the struct with the most fields, each with the number.
func largestTypes(p *types.Package) (methods, fields string) {
	mostMethods, mostFields := 0, 0
	for _, name := range p.Scope().Names() {
		t, ok := p.Scope().Lookup(name).(*types.TypeName)
		if !ok {
			continue
		}
		named, ok := t.Type().(*types.Named)
		if !ok {
			continue
		}
		if n := named.NumMethods(); n > mostMethods {
			mostMethods, methods = n, fmt.Sprintf("%s %d", name, n)
		}
		if s, ok := named.Underlying().(*types.Struct); ok && s.NumFields() > mostFields {
			mostFields, fields = s.NumFields(), fmt.Sprintf("%s %d", name, s.NumFields())
		}
	}
	return methods, fields
}

// largestCircle returns the size of the largest strongly connected component of the files, where a file needs another if
// it names something that the other declares.
func largestCircle(p *packages.Package) int {
	needs := make(map[string]map[string]bool)
	fileOf := func(pos token.Pos) string { return filepath.Base(p.Fset.Position(pos).Filename) }
	for id, obj := range p.TypesInfo.Uses {
		if obj.Pkg() != p.Types || !obj.Pos().IsValid() {
			continue
		}
		from, to := fileOf(id.Pos()), fileOf(obj.Pos())
		if from != to {
			if needs[from] == nil {
				needs[from] = make(map[string]bool)
			}
			needs[from][to] = true
		}
	}
	reach := func(from string) map[string]bool {
		seen, todo := map[string]bool{}, []string{from}
		for len(todo) > 0 {
			file := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			for next := range needs[file] {
				if !seen[next] {
					seen[next] = true
					todo = append(todo, next)
				}
			}
		}
		return seen
	}
	reached := make(map[string]map[string]bool)
	for file := range needs {
		reached[file] = reach(file)
	}
	largest := 0
	for file, there := range reached {
		n := 0
		for other := range there {
			if reached[other][file] {
				n++
			}
		}
		largest = max(largest, n)
	}
	return largest
}
