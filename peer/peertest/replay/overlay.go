package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// patch is one change of a file of the Go distribution.
type patch struct {
	file     string // below GOROOT/src
	old, new string // old occurs exactly once
}

// patches make the runtime take choices from the rng. doc.go describes the choices.
var patches = []patch{
	{"runtime/proc.go", "const randomizeScheduler = raceenabled\n", "var randomizeScheduler bool // set by simStart\n"},
	{"runtime/proc.go", `		gp := pp.runq[h%uint32(len(pp.runq))].ptr()
		if atomic.CasRel(&pp.runqhead, h, h+1) { // cas-release, commits consume
			return gp, false
		}
`, `		if n := t - h; randomizeScheduler && n > 1 { // there is one thread: nobody steals
			i, j := h%uint32(len(pp.runq)), (h+cheaprandn(n))%uint32(len(pp.runq))
			pp.runq[i], pp.runq[j] = pp.runq[j], pp.runq[i]
		}
		gp := pp.runq[h%uint32(len(pp.runq))].ptr()
		if atomic.CasRel(&pp.runqhead, h, h+1) { // cas-release, commits consume
			return gp, false
		}
`},
	{"runtime/chan.go", "func chansend(c *hchan, ep unsafe.Pointer, block bool, callerpc uintptr) bool {\n", "func chansend(c *hchan, ep unsafe.Pointer, block bool, callerpc uintptr) bool {\n\tsimLock()\n"},
	{"runtime/chan.go", "func chanrecv(c *hchan, ep unsafe.Pointer, block bool) (selected, received bool) {\n", "func chanrecv(c *hchan, ep unsafe.Pointer, block bool) (selected, received bool) {\n\tsimLock()\n"},
	{"runtime/select.go", "func selectgo(cas0 *scase, order0 *uint16, pc0 *uintptr, nsends, nrecvs int, block bool) (int, bool) {\n", "func selectgo(cas0 *scase, order0 *uint16, pc0 *uintptr, nsends, nrecvs int, block bool) (int, bool) {\n\tsimLock()\n"},
	{"internal/sync/runtime.go", "//go:linkname runtime_nanotime\n", "//go:linkname runtime_simLock\nfunc runtime_simLock()\n\n//go:linkname runtime_nanotime\n"},
	{"internal/sync/mutex.go", "func (m *Mutex) Lock() {\n", "func (m *Mutex) Lock() {\n\truntime_simLock()\n"},
	{"internal/sync/mutex.go", "		m.unlockSlow(new)\n	}\n}\n", "		m.unlockSlow(new)\n	}\n	runtime_simLock()\n}\n"},
}

// added is appended to runtime/proc.go.
const added = `
// The choices of a simulation. One thread uses them.
var (
	simStarted         bool
	simLocks, simLines bool
	simMean            uint32     // between two pauses, on the average
	simLeft            uint32 = 1 // until the next
)

// simStart says which choices this run makes: SIM_CHOICE is none or a list of order, locks and lines.
func simStart() {
	simStarted = true
	has := func(what string) bool {
		list := gogetenv("SIM_CHOICE")
		for i := 0; i+len(what) <= len(list); i++ {
			if list[i:i+len(what)] == what {
				return true
			}
		}
		return false
	}
	randomizeScheduler, simLocks, simLines = has("order"), has("locks"), has("lines")
	simMean = 16 << cheaprandn(8)
}

// simPause lets other goroutines run first, now and then. Only what runs in a bubble does so.
func simPause() {
	if simLeft--; simLeft != 0 {
		return
	}
	if simMean == 0 {
		simLeft = 64
	} else {
		simLeft = 1 + cheaprandn(2*simMean)
	}
	gp := getg()
	if gp != gp.m.curg || gp.bubble == nil || gp.m.locks != 0 || gp.m.mallocing != 0 || gp.m.preemptoff != "" {
		return
	}
	if !simStarted {
		simStart()
	}
	if cheaprandn(4) == 0 {
		Gosched() // until nothing else is ready, or some sixty others have run
	} else {
		goyield()
	}
}

func simLock() {
	if simLocks || !simStarted {
		simPause()
	}
}

//go:linkname internal_sync_runtime_simLock internal/sync.runtime_simLock
func internal_sync_runtime_simLock() { simLock() }

var simFault int32 = -1 // the number of the fault; -1: not read yet

// SimFault reports whether a fault in the simulated packages is the one that SIM_FAULT has chosen.
func SimFault(n int32) bool {
	if simFault < 0 {
		simFault = 0
		for _, digit := range []byte(gogetenv("SIM_FAULT")) {
			simFault = 10*simFault + int32(digit-'0')
		}
	}
	return simFault == n
}

// SimLine stands before statements of the simulated packages.
func SimLine() {
	if simLines || !simStarted {
		simPause()
	}
}
`

// lineDirs are the packages that may pause before each statement.
var lineDirs = []string{"peer", "peer/internal/*", "tier", "tier/internal/*"}

// distribution is an installed Go.
type distribution struct{ root, version string }

// overlay writes the changed files to dir, together with the JSON file that maps the originals to them. It returns the name
// of that file.
func overlay(dir string, goes distribution, weir string, faulty bool) (string, error) {
	replace := make(map[string]string)
	put := func(original string, text string) error {
		name := filepath.Join(dir, fmt.Sprintf("%d-%s", len(replace), filepath.Base(original)))
		replace[original] = name
		return os.WriteFile(name, []byte(text), 0o644)
	}
	texts := make(map[string]string)
	for _, p := range patches {
		text, ok := texts[p.file]
		if !ok {
			b, err := os.ReadFile(filepath.Join(goes.root, "src", filepath.FromSlash(p.file)))
			if err != nil {
				return "", err
			}
			text = string(b)
		}
		if n := strings.Count(text, p.old); n != 1 {
			return "", fmt.Errorf("%s has the following %d times in %s, and not once: the patches in overlay.go are for another Go\n%s", p.file, n, goes.version, p.old)
		}
		texts[p.file] = strings.Replace(text, p.old, p.new, 1)
	}
	texts["runtime/proc.go"] += added
	for _, file := range slices.Sorted(maps.Keys(texts)) {
		if err := put(filepath.Join(goes.root, "src", filepath.FromSlash(file)), texts[file]); err != nil {
			return "", err
		}
	}
	simulated, err := sources(weir)
	if err == nil && faulty {
		err = addFaults(simulated)
	}
	if err != nil {
		return "", err
	}
	for _, file := range slices.Sorted(maps.Keys(simulated)) {
		text, err := withPauses(file, simulated[file])
		if err != nil {
			return "", err
		}
		if err := put(file, text); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, b, 0o644)
}

// withPauses returns the text of a Go file with a possible pause before each statement. Lines keep their numbers.
func withPauses(name, text string) (string, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution)
	if err != nil {
		return "", err
	}
	at := map[int]string{fset.Position(f.Name.End()).Offset: "; import simruntime \"runtime\""}
	ast.Inspect(f, func(n ast.Node) bool {
		var list []ast.Stmt
		switch n := n.(type) {
		case *ast.BlockStmt:
			list = n.List
		case *ast.CaseClause:
			list = n.Body
		case *ast.CommClause:
			list = n.Body
		}
		for _, s := range list {
			switch s.(type) {
			case *ast.CaseClause, *ast.CommClause, *ast.EmptyStmt: // of a switch or select
			default:
				at[fset.Position(s.Pos()).Offset] = "simruntime.SimLine(); "
			}
		}
		return true
	})
	if len(at) == 1 {
		return text, nil // only declarations
	}
	var b strings.Builder
	for i := range len(text) {
		b.WriteString(at[i])
		b.WriteByte(text[i])
	}
	return b.String(), nil
}
