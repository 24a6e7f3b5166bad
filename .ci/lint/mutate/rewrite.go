package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
)

// variable is the environment variable with the number of the chosen change.
const variable = "MUTATE_CHANGE"

// helpers is added to the package. Each helper has the meaning of its operator unless the chosen change is one of its own:
// the number id and, of a comparison with <, <=, > or >=, the number id+1.
const helpers = `
import (
	"os"
	"strconv"
)

var mutateChosen = func() int { n, _ := strconv.Atoi(os.Getenv("` + variable + `")); return n }()

type mutateNumber interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr | ~float32 | ~float64
}

type mutateInteger interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr
}

func mutateLss[T mutateNumber | ~string](id int, a, b T) bool { switch mutateChosen { case id: return a <= b; case id+1: return a >= b }; return a < b }
func mutateLeq[T mutateNumber | ~string](id int, a, b T) bool { switch mutateChosen { case id: return a < b; case id+1: return a > b }; return a <= b }
func mutateGtr[T mutateNumber | ~string](id int, a, b T) bool { switch mutateChosen { case id: return a >= b; case id+1: return a <= b }; return a > b }
func mutateGeq[T mutateNumber | ~string](id int, a, b T) bool { switch mutateChosen { case id: return a > b; case id+1: return a < b }; return a >= b }
func mutateAdd[T mutateNumber](id int, a, b T) T { if mutateChosen == id { return a - b }; return a + b }
func mutateSub[T mutateNumber](id int, a, b T) T { if mutateChosen == id { return a + b }; return a - b }
func mutateMul[T mutateNumber](id int, a, b T) T { if mutateChosen == id { return a / b }; return a * b }
func mutateQuo[T mutateNumber](id int, a, b T) T { if mutateChosen == id { return a * b }; return a / b }
func mutateRem[T mutateInteger](id int, a, b T) T { if mutateChosen == id { return a * b }; return a % b }
func mutateInc[T mutateNumber](id int, a T) T { if mutateChosen == id { return a - 1 }; return a + 1 }
func mutateDec[T mutateNumber](id int, a T) T { if mutateChosen == id { return a + 1 }; return a - 1 }
func mutateNeg[T mutateNumber](id int, a T) T { if mutateChosen == id { return +a }; return -a }
`

// helperOf has the helper of each operator that needs one.
var helperOf = map[token.Token]string{
	token.LSS: "mutateLss", token.LEQ: "mutateLeq", token.GTR: "mutateGtr", token.GEQ: "mutateGeq",
	token.ADD: "mutateAdd", token.SUB: "mutateSub", token.MUL: "mutateMul", token.QUO: "mutateQuo", token.REM: "mutateRem",
	token.INC: "mutateInc", token.DEC: "mutateDec",
}

// others has what each operator is changed to, in the order of the numbers that its helper expects.
var others = map[token.Token][]token.Token{
	token.LSS: {token.LEQ, token.GEQ}, token.LEQ: {token.LSS, token.GTR}, token.GTR: {token.GEQ, token.LEQ}, token.GEQ: {token.GTR, token.LSS},
	token.EQL: {token.NEQ}, token.NEQ: {token.EQL},
	token.ADD: {token.SUB}, token.SUB: {token.ADD}, token.MUL: {token.QUO}, token.QUO: {token.MUL}, token.REM: {token.MUL},
	token.INC: {token.DEC}, token.DEC: {token.INC},
}

// A change replaces one operator by another.
type change struct {
	id       int
	file     *file
	from, to token.Token
	at       token.Position // of the operator
	apart    bool           // it needs a binary of its own
}

func (c *change) String() string {
	return fmt.Sprintf("%s:%d:%d %s to %s", c.file.base, c.at.Line, c.at.Column, c.from, c.to)
}

// A site is a node of the source with changes, which is rewritten.
type site struct {
	from, to int // offsets of the node
	id       int // of its first change
	node     ast.Node
}

// file is a source file.
type file struct {
	name, base string
	text       string
	sites      []site // sorted; outer ones come before those inside
}

// sitesOf finds the changes of a file. id numbers the next change.
func (p *pack) sitesOf(f *file, syntax *ast.File, info *types.Info, fset *token.FileSet) {
	offset := func(pos token.Pos) int { return fset.Position(pos).Offset }
	ast.Inspect(syntax, func(n ast.Node) bool {
		var op token.Token
		var at token.Pos
		apart := false
		switch n := n.(type) {
		case *ast.BinaryExpr:
			op, at = n.Op, n.OpPos
			t := info.Types[n.X].Type
			if basic, ok := t.Underlying().(*types.Basic); op == token.ADD && ok && basic.Info()&types.IsString != 0 {
				return true // no other operator takes strings
			}
			apart = info.Types[n].Value != nil
		case *ast.UnaryExpr:
			if op, at = n.Op, n.OpPos; op != token.SUB {
				return true
			}
			apart = info.Types[n].Value != nil
		case *ast.IncDecStmt:
			op, at = n.Tok, n.TokPos
			ast.Inspect(n.X, func(x ast.Node) bool { // the helper's form evaluates it twice
				_, call := x.(*ast.CallExpr)
				apart = apart || call
				return true
			})
		}
		first := len(p.changes) + 1
		for _, to := range others[op] {
			p.changes = append(p.changes, &change{id: len(p.changes) + 1, file: f, from: op, to: to, at: fset.Position(at), apart: apart})
		}
		if len(p.changes) >= first && !apart {
			f.sites = append(f.sites, site{offset(n.Pos()), offset(n.End()), first, n})
		}
		return true
	})
	slices.SortStableFunc(f.sites, func(a, b site) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to)) })
}

// rewritten returns the text of f between two offsets with all its changes in it. The sites are those in between.
func (f *file) rewritten(from, to int, sites []site, offset func(token.Pos) int) string {
	var b strings.Builder
	for len(sites) > 0 {
		s := sites[0]
		inside := 1
		for inside < len(sites) && sites[inside].from < s.to {
			inside++
		}
		b.WriteString(f.text[from:s.from])
		part := func(n ast.Node) string {
			lo, hi := offset(n.Pos()), offset(n.End())
			var within []site
			for _, x := range sites[1:inside] {
				if x.from >= lo && x.to <= hi {
					within = append(within, x)
				}
			}
			return f.rewritten(lo, hi, within, offset)
		}
		switch n := s.node.(type) {
		case *ast.BinaryExpr:
			if helper := helperOf[n.Op]; helper != "" {
				fmt.Fprintf(&b, "%s(%d, %s, %s)", helper, s.id, part(n.X), part(n.Y))
			} else {
				fmt.Fprintf(&b, "((%s %s %s) != (mutateChosen == %d))", part(n.X), n.Op, part(n.Y), s.id)
			}
		case *ast.UnaryExpr:
			fmt.Fprintf(&b, "mutateNeg(%d, %s)", s.id, part(n.X))
		case *ast.IncDecStmt:
			fmt.Fprintf(&b, "%s = %s(%d, %s)", part(n.X), helperOf[n.Tok], s.id, part(n.X))
		}
		from, sites = s.to, sites[inside:]
	}
	b.WriteString(f.text[from:to])
	return b.String()
}

// changed returns the text of the change's file with the change alone.
func (c *change) changed() string {
	return c.file.text[:c.at.Offset] + c.to.String() + c.file.text[c.at.Offset+len(c.from.String()):]
}
