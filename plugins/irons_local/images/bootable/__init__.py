"""What a virtual machine boots from: a disk with an image's files, a kernel and an initial RAM disk, made of the image.

`store` keeps them next to the image, `disk` makes them as the owner of the image's files, `initrd` and `cpio` are pure.
Nothing is started here, and nothing of an image is executed or mounted.
"""
