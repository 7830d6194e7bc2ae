package policies

import (
	"embed"
	"io/fs"
)

//go:embed all:packs
var packs embed.FS

// BuiltIn are the folders of the packs that come with Maestro, by the name of the pack.
func BuiltIn() map[string]fs.FS {
	out := map[string]fs.FS{}
	for name, folder := range map[string]string{"mc.authz": "authz", "mc.limits": "limits", "mc.packages": "packages"} {
		sub, err := fs.Sub(packs, "packs/"+folder)
		if err != nil {
			panic("policies: an embedded folder has no name: " + err.Error())
		}
		out[name] = sub
	}
	return out
}
