package coordinator

// BusAddresses returns the cluster-to-cluster addresses of the members.
func (c *Coordinator) BusAddresses() []string {
	var out []string
	for _, m := range c.state.Members() {
		if m.Bus != "" {
			out = append(out, m.Bus)
		}
	}
	return out
}
