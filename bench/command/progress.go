package command

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/weircache/weir/bench/harness"
)

// every is the interval between lines of progress.
const every = 5 * time.Second

// progress writes lines about the progress of a run.
type progress struct {
	w io.Writer

	mu    sync.Mutex // guards the rest, and the order of the output
	last  time.Duration
	round string
}

// tell implements harness.Options.Progress. It ignores errors: a run does not end because its progress cannot be shown.
func (p *progress) tell(x harness.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	who := x.System
	if x.Rounds > 1 {
		who = fmt.Sprintf("%s, round %d of %d", x.System, x.Round, x.Rounds)
	}
	at := x.Elapsed.Round(100 * time.Millisecond).Seconds()
	switch {
	case x.Text != "":
		_, _ = fmt.Fprintf(p.w, "%6.1fs  %s: %s\n", at, who, x.Text)
	case p.round != who || x.Elapsed-p.last >= every:
		p.round, p.last = who, x.Elapsed
		_, _ = fmt.Fprintf(p.w, "%6.1fs of %v  %s\n", at, x.Of, who)
	}
}
