package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/bench/scenario"
)

// gauge is a per-node counter on its own cache lines, because many callers update it.
type gauge struct {
	atomic.Int64
	_ [56]byte
}

// stepWithin is the timeout of one step: a system that hangs in it must not delay the rest.
const stepWithin = 15 * time.Second

// notDone is the error of a step that was cut short by the end of the run.
const notDone = "not done by the end of the run"

// faults executes the scenario's steps when they are due, and returns their marks.
func (d *driver) faults(ctx context.Context, s *scenario.Scenario, tell func(time.Duration, string)) []Mark {
	var marks []Mark
	for _, o := range s.Origin.Outages {
		marks = append(marks,
			Mark{At: o.From, What: "origin: " + o.Kind},
			Mark{At: o.To, What: "origin: well"})
	}
	for _, p := range plan(s) {
		if !d.sleepUntil(ctx, p.at) {
			break
		}
		m := Mark{At: scenario.Duration(d.clock.now().Round(time.Millisecond)), What: p.step.String()}
		doing, cancel := context.WithTimeout(ctx, stepWithin)
		err := d.step(doing, p.step)
		cancel()
		switch {
		case errors.Is(err, ErrCannot):
			m.Error = "cannot"
		case err != nil && ctx.Err() != nil:
			m.Error = notDone
		case err != nil:
			m.Error = err.Error()
		}
		text := m.What
		if m.Error != "" {
			text += ": " + m.Error
		}
		tell(d.clock.now(), text)
		marks = append(marks, m)
	}
	return sorted(marks)
}

func sorted(marks []Mark) []Mark {
	slices.SortStableFunc(marks, func(a, b Mark) int { return cmp.Compare(a.At, b.At) })
	return marks
}

// step executes one step. Like a load balancer, it diverts callers from a node that goes and sends them back to one
// that comes. It learns late of a kill that is unnoticed.
func (d *driver) step(ctx context.Context, s Step) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	switch s.Do {
	case StepKill:
		if !s.Unnoticed {
			d.setUp(s.Node, false)
		}
		d.gone[s.Node].Add(1)
		if err = d.cluster.Fault(ctx, s); errors.Is(err, ErrCannot) {
			d.setUp(s.Node, true)
		} else if s.Unnoticed {
			d.unnoticed |= 1 << s.Node
		}
		return err
	case StepStall:
		return d.stall(s.For)
	case StepNotice:
		if d.unnoticed.has(s.Node) {
			d.unnoticed &^= 1 << s.Node
			d.setUp(s.Node, false)
		}
		return nil
	case StepLeave:
		d.setUp(s.Node, false)
		drained := time.Now().Add(drainWithin)
		for d.calling[s.Node].Load() > 0 && ctx.Err() == nil && time.Now().Before(drained) {
			if !d.sleepUntil(ctx, d.clock.now()+time.Millisecond) {
				break
			}
		}
		if err = d.cluster.Fault(ctx, s); errors.Is(err, ErrCannot) {
			d.setUp(s.Node, true)
		}
		return err
	case StepJoin:
		if err = d.cluster.Fault(ctx, s); err == nil {
			d.unnoticed &^= 1 << s.Node
			d.setUp(s.Node, true)
		}
		return err
	case StepFlush:
		if err = d.cluster.Fault(ctx, s); err == nil {
			d.ledger.forgetAll()
		}
		return err
	}
	if err = d.cluster.Fault(ctx, s); err == nil && s.Do == StepCut {
		d.parted.Store(true)
	} else if s.Do == StepHeal {
		d.parted.Store(false)
	}
	return err
}

// setUp sets whether callers use the node. Only the goroutine of the faults calls it.
func (d *driver) setUp(node int, on bool) {
	up := slices.DeleteFunc(slices.Clone(*d.up.Load()), func(n int) bool { return n == node })
	if on {
		up = append(up, node)
		slices.Sort(up)
	}
	d.up.Store(&up)
}
