package command

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/weircache/weir/bench/harness"
)

// every is the interval between lines if the output is not a terminal.
const every = 5 * time.Second

// progress shows the progress of a run: a bar on a terminal, lines elsewhere.
type progress struct {
	w        io.Writer
	terminal bool

	mu    sync.Mutex // guards the rest, and the order of the output
	last  time.Duration
	round string
	drawn bool
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w}
	if f, ok := w.(*os.File); ok {
		if s, err := f.Stat(); err == nil {
			p.terminal = s.Mode()&os.ModeCharDevice != 0
		}
	}
	return p
}

// tell implements harness.Options.Progress.
func (p *progress) tell(x harness.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	who := x.System
	if x.Rounds > 1 {
		who = fmt.Sprintf("%s, round %d of %d", x.System, x.Round, x.Rounds)
	}
	at := x.Elapsed.Round(100 * time.Millisecond)
	switch {
	case x.Text != "":
		p.clear()
		p.print("%6.1fs  %s: %s\n", at.Seconds(), who, x.Text)
	case p.terminal:
		const width = 30
		n := int(width * max(0, x.Elapsed) / max(1, x.Of))
		p.print("\r\x1b[K%s%s %5.1fs of %v  %s", strings.Repeat("█", n), strings.Repeat("░", width-n), at.Seconds(), x.Of, who)
		p.drawn = true
	case p.round != who || x.Elapsed-p.last >= every:
		p.round, p.last = who, x.Elapsed
		p.print("%6.1fs of %v  %s\n", at.Seconds(), x.Of, who)
	}
}

// clear removes the bar.
func (p *progress) clear() {
	if p.drawn {
		p.print("\r\x1b[K")
		p.drawn = false
	}
}

func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

// print writes to the output. It ignores errors: a run does not end because its progress cannot be shown.
func (p *progress) print(format string, args ...any) { _, _ = fmt.Fprintf(p.w, format, args...) }
