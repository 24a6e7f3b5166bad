package peer

// Check returns everything that is wrong with c, as Start would, without starting anything. The error wraps ErrConfig; each
// line of it begins with the field's name.
func (c Config) Check() error {
	_, err := c.check()
	return err
}
