"""quantlab: which quantization of this speech recogniser should I deploy, on this device?"""
