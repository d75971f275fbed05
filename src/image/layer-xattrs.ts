/** The xattrs with which a layer's own (unmerged) metadata speaks to the merge. */

/** Source: overlayfs, and containerd's OverlayConvertWhiteout. The value is OPAQUE_VALUE. */
export const OPAQUE_XATTR = "trusted.overlay.opaque";
export const OPAQUE_VALUE: Uint8Array = Buffer.from("y");

/**
 * Marks a directory that the layer never described, only used as a parent. containerd gives it
 * the attributes of the same directory below (`mkparent` in pkg/archive/tar.go), so the merge
 * takes those; 0755 of root where there is none. Never shown to anybody.
 */
export const IMPLICIT_XATTR = "trusted.faasnet.implicit";
export const IMPLICIT_VALUE: Uint8Array = Buffer.from("y");
