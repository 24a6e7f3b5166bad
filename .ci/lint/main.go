// Command lint checks modules with the analyzers of go vet and staticcheck.
//
//	lint [-types] DIR...   checks the modules in DIR, their tests included
//	lint -house DIR...     prints how large the packages are: files, lines, circles of files, types
//
// The commands go vet and staticcheck would compile every dependency for its export data first, which takes minutes from an empty build cache.
// lint type-checks everything from source instead and compiles nothing. With -types it does only that: run it with
// another GOARCH to see whether the code is valid there.
//
// It also checks that no file but a test has more than 500 lines, and that no function has more than 6 parameters (house.go).
//
// lint honours only one of staticcheck's comments: //lint:ignore U1000.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/checker"
	"golang.org/x/tools/go/analysis/suite/vet"
	"golang.org/x/tools/go/packages"
	"honnef.co/go/tools/analysis/lint"
	"honnef.co/go/tools/simple"
	"honnef.co/go/tools/staticcheck"
	"honnef.co/go/tools/stylecheck"
	"honnef.co/go/tools/unused"
)

func main() {
	types := flag.Bool("types", false, "only type-check")
	figures := flag.Bool("house", false, "print the sizes of the packages, and check nothing else")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: lint [-types | -house] DIR...")
		os.Exit(2)
	}
	found := 0
	for _, dir := range flag.Args() {
		pkgs, err := load(dir)
		var findings []finding
		if err == nil && *figures {
			sizes, _ := house(pkgs)
			err = printFigures(os.Stdout, sizes)
		} else if err == nil && !*types {
			if findings, err = analyze(pkgs); err == nil {
				_, sizes := house(pkgs)
				findings = append(findings, sizes...)
			}
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "lint %s: %v\n", dir, err)
			os.Exit(1)
		}
		for _, f := range findings {
			fmt.Printf("%s: %s (%s)\n", short(f.pos), f.message, f.check)
		}
		found += len(findings)
	}
	if found > 0 {
		os.Exit(1)
	}
}

// load type-checks all packages of the module in dir, their tests and what they import.
func load(dir string) ([]*packages.Package, error) {
	pkgs, err := packages.Load(&packages.Config{
		Mode:  packages.LoadAllSyntax | packages.NeedModule,
		Dir:   dir,
		Tests: true,
	}, "./...")
	if err != nil {
		return nil, err
	}
	if len(pkgs) == 0 {
		return nil, errors.New("no packages")
	}
	if n := packages.PrintErrors(pkgs); n > 0 {
		return nil, fmt.Errorf("%d errors", n)
	}
	// The main packages that go test generates are not the project's code.
	return slices.DeleteFunc(pkgs, func(p *packages.Package) bool { return strings.HasSuffix(p.PkgPath, ".test") }), nil
}

// A finding is what an analyzer reports at a position.
type finding struct {
	pos     token.Position
	check   string
	message string
}

// analyze runs all analyzers. A package and the same package with its tests are two packages for them, so a finding can
// occur twice. The findings of some checks count only if every package that contains the file has them.
func analyze(pkgs []*packages.Package) ([]finding, error) {
	inAll := map[*analysis.Analyzer]bool{}
	analyzers := append([]*analysis.Analyzer{unused.Analyzer.Analyzer}, vet.Suite...)
	for _, list := range [][]*lint.Analyzer{simple.Analyzers, staticcheck.Analyzers, stylecheck.Analyzers} {
		for _, a := range list {
			if !a.Doc.NonDefault {
				analyzers = append(analyzers, a.Analyzer)
				inAll[a.Analyzer] = a.Doc.MergeIf == lint.MergeIfAll
			}
		}
	}
	graph, err := checker.Analyze(analyzers, pkgs, nil)
	if err != nil {
		return nil, err
	}
	packagesOf := map[string]int{} // by file
	for _, p := range pkgs {
		for _, file := range p.CompiledGoFiles {
			packagesOf[file]++
		}
	}
	count := map[finding]int{}
	all := map[finding]bool{}
	for _, act := range graph.Roots {
		if act.Err != nil {
			return nil, fmt.Errorf("%v: %w", act, act.Err)
		}
		seen := map[finding]bool{} // a package may report the same finding more than once
		for _, d := range act.Diagnostics {
			f := finding{act.Package.Fset.Position(d.Pos), act.Analyzer.Name, d.Message}
			if !seen[f] {
				seen[f] = true
				count[f]++
				all[f] = inAll[act.Analyzer]
			}
		}
	}
	findings := unusedIn(graph)
	for f, n := range count {
		if !all[f] || n >= packagesOf[f.pos.Filename] {
			findings = append(findings, f)
		}
	}
	slices.SortFunc(findings, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.pos.Filename, b.pos.Filename), cmp.Compare(a.pos.Line, b.pos.Line),
			cmp.Compare(a.pos.Column, b.pos.Column), cmp.Compare(a.check, b.check))
	})
	return findings, nil
}

// unusedIn lists what no package of the graph uses. Code that only a test uses counts as used.
func unusedIn(graph *checker.Graph) (findings []finding) {
	type object struct {
		file string
		line int
		name string
	}
	key := func(o unused.Object) object { return object{o.Position.Filename, o.Position.Line, o.Name} }
	used, told := map[object]bool{}, map[object]bool{}
	var results []unused.Result
	for _, act := range graph.Roots {
		if r, ok := act.Result.(unused.Result); ok {
			results = append(results, r)
			for _, o := range r.Used {
				used[key(o)] = true
			}
		}
	}
	for _, r := range results {
		for _, o := range r.Unused {
			if k := key(o); !used[k] && !told[k] {
				told[k] = true
				findings = append(findings, finding{o.DisplayPosition, "U1000", fmt.Sprintf("%s %s is unused", o.Kind, o.Name)})
			}
		}
	}
	return findings
}

// short makes the position's file relative to the working directory.
func short(pos token.Position) token.Position {
	if dir, err := os.Getwd(); err == nil {
		if name, err := filepath.Rel(dir, pos.Filename); err == nil {
			pos.Filename = name
		}
	}
	return pos
}
