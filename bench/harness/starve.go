package harness

import (
	"errors"
	"time"
)

// A starved process is stopped for half of every starvePeriod.
const starvePeriod = 100 * time.Millisecond

// A starvation is in progress. The goroutine that executes the faults uses it, and Close uses it once that
// goroutine has ended.
type starvation struct {
	over  chan struct{} // closed to end it
	ended chan error    // receives the result when the process runs permanently again
}

// starve stops and continues the process until feed is called. It returns an error if the process cannot be stopped.
func (p *process) starve() error {
	if p.starvation != nil {
		return errors.New("the node is starved already")
	}
	if err := p.hold(true); err != nil {
		return err
	}
	s := &starvation{over: make(chan struct{}), ended: make(chan error, 1)}
	p.starvation = s
	go func() {
		tick := time.NewTicker(starvePeriod / 2)
		defer tick.Stop()
		for still := true; ; {
			select {
			case <-tick.C:
				still = !still
				if err := p.hold(still); err != nil {
					s.ended <- err
					return
				}
			case <-s.over:
				s.ended <- p.hold(false)
				return
			}
		}
	}()
	return nil
}

// feed ends a starvation and waits until the process runs again. It does nothing if none is in progress.
func (p *process) feed() error {
	if p.starvation == nil {
		return nil
	}
	close(p.starvation.over)
	err := <-p.starvation.ended
	p.starvation = nil
	return err
}
