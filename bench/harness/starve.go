package harness

import (
	"errors"
	"time"
)

// A starved process stands still for half of every starvePeriod.
const starvePeriod = 100 * time.Millisecond

// hunger is a process being starved. Only the goroutine that does the faults, and Close after it, use one.
type hunger struct {
	over  chan struct{} // closed when it is to end
	ended chan error    // has the result once the process goes on for good
}

// starve stops and continues the process until feed is called. It returns an error if the process cannot be stopped.
func (p *process) starve() error {
	if p.hunger != nil {
		return errors.New("the node is starved already")
	}
	if err := stand(p.cmd.Process, true); err != nil {
		return err
	}
	h := &hunger{over: make(chan struct{}), ended: make(chan error, 1)}
	p.hunger = h
	go func() {
		tick := time.NewTicker(starvePeriod / 2)
		defer tick.Stop()
		for still := true; ; {
			select {
			case <-tick.C:
				still = !still
				if err := stand(p.cmd.Process, still); err != nil {
					h.ended <- err
					return
				}
			case <-h.over:
				h.ended <- stand(p.cmd.Process, false)
				return
			}
		}
	}()
	return nil
}

// feed ends what starve began, and waits until the process goes on. Without a starve before it, it does nothing.
func (p *process) feed() error {
	if p.hunger == nil {
		return nil
	}
	close(p.hunger.over)
	err := <-p.hunger.ended
	p.hunger = nil
	return err
}
